// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Fault lines and their expected records: golden lines, real logs, and broken lines.
#include "moat/fault/decode.hpp"
#include "moat/fault/report.hpp"

#include "fault/log_context.hpp"
#include "fault/log_group.hpp"

#include <array>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace moat::fault {

namespace {

const std::string data = MOAT_TEST_DATA;

/// The facts of an event in one line; of a detail or a note only its kind.
[[nodiscard]] std::string describe(const LogEvent& event) {
    std::string text = std::string(name(event.origin)) + " ";
    if (event.kind == LogEvent::Kind::mapped || event.kind == LogEvent::Kind::unmapped) {
        const Mapping& mapping = event.mapping;
        text += std::string(name(event.kind)) + " " + hexadecimal(mapping.range.start().value()) +
                " +" + to_string(mapping.range.size()) + " " + std::string(name(mapping.allows)) +
                " " + std::to_string(mapping.mapped.time_ns);
        return text + (event.device.empty() ? "" : " " + event.device);
    }
    if (event.kind != LogEvent::Kind::fault)
        text += std::string(name(event.kind)) + " ";
    text += to_string(event.record);
    if (!event.unit.empty())
        text += ", by " + event.unit;
    if (!event.device.empty() && event.record.source.kind() != Source::Kind::pci)
        text += ", of " + event.device;
    if (event.bytes)
        text += ", " + std::to_string(*event.bytes) + " bytes";
    if (event.error)
        text += ", errno " + std::to_string(*event.error);
    return text;
}

[[nodiscard]] std::vector<std::string> lines_of(const std::string& name) {
    std::ifstream file(data + "/" + name);
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
        lines.push_back(line);
    EXPECT_FALSE(lines.empty()) << name;
    return lines;
}

[[nodiscard]] std::vector<LogEvent> decode(const std::vector<std::string>& lines) {
    std::vector<LogEvent> found;
    const auto keep = [&](const LogEvent& decoded) {
        if (is_problem(decoded.kind) || decoded.kind >= LogEvent::Kind::mapped ||
            decoded.kind == LogEvent::Kind::suppressed)
            found.push_back(decoded);
    };
    Decoder decoder;
    for (const std::string& line : lines)
        decoder.line(line, keep);
    decoder.end(keep);
    return found;
}

/// Without details and notes.
[[nodiscard]] std::string describe(const std::vector<std::string>& lines) {
    std::string text;
    for (const LogEvent& each : decode(lines))
        if (is_problem(each.kind) || each.kind >= LogEvent::Kind::mapped ||
            each.kind == LogEvent::Kind::suppressed)
            text += (text.empty() ? "" : "\n") + describe(each);
    return text;
}

struct Golden {
    std::string observed;
    std::vector<std::string> lines;
    std::string expected;
};

/// Lines "@ source", then log lines, then "-> event" for each problem they tell of.
[[nodiscard]] std::vector<Golden> golden_lines(const std::string& file = "golden_lines.txt") {
    std::vector<Golden> all;
    for (const std::string& line : lines_of(file)) {
        if (line.starts_with("@ "))
            all.push_back({line.substr(2), {}, {}});
        else if (line.starts_with("-> "))
            all.back().expected += (all.back().expected.empty() ? "" : "\n") + line.substr(3);
        else if (!line.empty() && !line.starts_with("#"))
            all.back().lines.push_back(line);
    }
    return all;
}

TEST(Decode, golden_lines_give_their_records) {
    const auto all = golden_lines();
    ASSERT_GE(all.size(), 40U);
    for (const Golden& golden : all)
        EXPECT_EQ(describe(golden.lines), golden.expected) << golden.observed << "\n"
                                                           << golden.lines.front();
}

TEST(Decode, understands_what_people_paste) {
    const auto all = golden_lines("pasted_lines.txt");
    ASSERT_GE(all.size(), 47U);
    for (const Golden& golden : all)
        EXPECT_EQ(describe(golden.lines), golden.expected) << golden.observed << "\n"
                                                           << golden.lines.front();
}

TEST(Decode, understands_every_golden_line) {
    const auto ignore = [](const LogEvent&) {};
    Decoder decoder;
    for (const char* file : {"golden_lines.txt", "pasted_lines.txt"})
        for (const Golden& golden : golden_lines(file)) {
            for (const std::string& line : golden.lines)
                decoder.line(line, ignore);
            decoder.end(ignore);
            EXPECT_EQ(decoder.counts().first_unknown, "") << golden.observed;
        }
    EXPECT_GT(decoder.counts().naming_an_iommu, 60U);
}

TEST(Decode, counts_lines_that_name_an_iommu_and_are_unknown) {
    const auto none = [](const LogEvent&) { FAIL(); };
    Decoder decoder;
    decoder.line("DMAR: the unit sings", none);
    decoder.line("eth0: link is up", none);
    decoder.line("\tarm-smmu: it dances", none);
    decoder.end(none);
    EXPECT_EQ(decoder.counts().lines, 3U);
    EXPECT_EQ(decoder.counts().naming_an_iommu, 2U);
    EXPECT_EQ(decoder.counts().unknown, 2U);
    EXPECT_EQ(decoder.counts().first_unknown_number, 1U);
    EXPECT_TRUE(decoder.counts().first_unknown.starts_with("DMAR: the unit sings"));
}

/// Every place of a line where a mail program or a terminal may break it.
TEST(Decode, joins_a_line_that_was_broken) {
    const std::string line = "nvme 0000:02:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c "
                             "address=0xfdf80040 flags=0x0070]";
    const std::string whole = describe({line});
    EXPECT_EQ(whole, "amd 0000:02:00.0: write at 0xfdf80040: permission (code 0x70), domain 0xc");
    for (std::size_t at = line.find(": AMD") + 9; at != line.size(); ++at)
        EXPECT_EQ(describe({line.substr(0, at), "> " + line.substr(at)}), whole)
            << line.substr(0, at);
}

TEST(Decode, reads_through_colours_quotes_and_prefixes) {
    const std::string line = "DMAR: [DMA Read NO_PASID] Request device [00:1f.2] fault addr 0x7000 "
                             "[fault reason 0x06] PTE Read access is not set";
    for (const std::string& pasted :
         {"> > " + line, "\x1b[33m[    1.000000] \x1b[0m\x1b[31m" + line + "\x1b[0m", line + "\r",
          "11-21 00:46:01.123     0     0 E " + line, "nov. 21 00:46:01 h\xc3\xb4te noyau: " + line,
          "\xc2\xa0\xc2\xa0" + line, "[Fri Nov 21 00:46:01 2025] " + line,
          std::string("dmar: [dma read no pasid] request device [00:1f.2] fault addr 0x7000 [Fault "
                      "reason 0x06]")})
        EXPECT_EQ(describe({pasted}), "intel 00:1f.2: read of page 0x7000: permission (code 0x6)")
            << pasted;
    EXPECT_EQ(decode({"[Fri Nov 21 00:46:01 2025] " + line}).at(0).second_of_day, 2761U);
}

TEST(Decode, golden_lines_give_them_in_one_log_as_well) {
    std::vector<std::string> lines;
    std::string expected;
    for (const Golden& golden : golden_lines()) {
        if (golden.expected.starts_with("kernel"))
            continue; // only at the end of a log
        lines.insert(lines.end(), golden.lines.begin(), golden.lines.end());
        lines.emplace_back("systemd[1]: Started a service [fault reason 05].");
        expected += (expected.empty() ? "" : "\n") + golden.expected;
    }
    EXPECT_EQ(describe(lines), expected);
}

TEST(Decode, reads_the_time_where_the_log_has_it) {
    const std::string line = "DMAR: [DMA Read NO_PASID] Request device [00:1f.2] fault addr 0x0 "
                             "[fault reason 0x06] PTE Read access is not set";
    EXPECT_EQ(decode({"[   11.236557] " + line}).at(0).record.time_ns, 11'236'557'000U);
    EXPECT_EQ(decode({"<4>[11.236557] " + line}).at(0).record.time_ns, 11'236'557'000U);
    EXPECT_EQ(decode({"Nov 21 00:46:01 host kernel: [   11.236557] " + line}).at(0).record.time_ns,
              11'236'557'000U);
    EXPECT_EQ(decode({"4,1523,11236557,-;" + line}).at(0).record.time_ns, 11'236'557'000U);
    EXPECT_EQ(decode({line}).at(0).record.time_ns, std::nullopt);
    EXPECT_EQ(decode({"[Fri Nov 21 00:46:01 2025] " + line}).at(0).record.time_ns, std::nullopt);
}

TEST(Decode, reads_real_logs_with_their_noise) {
    EXPECT_EQ(describe(lines_of("intel-6.12.117-type1.txt")),
              "qemu 00:01.0: access at 0x1001000: unknown\n"
              "intel 00:01.0: write of page 0x1001000: permission (code 0x5)\n"
              "intel 00:01.0: read of page 0x1001000: permission (code 0x6)\n"
              "intel 00:01.0: write of page 0x3000000: permission (code 0x5)");
    EXPECT_EQ(decode(lines_of("intel-6.12.117-iommufd.txt")).size(), 7U);
    const auto virtio = decode(lines_of("virtio-iommu-6.12.117.txt"));
    ASSERT_EQ(virtio.size(), 12U);
    for (std::size_t index = 1; index != 11; ++index)
        EXPECT_EQ(virtio[index].record.where.start(), Iova(0x1001000 + 4 * (index - 1)));
}

TEST(Decode, keeps_a_fault_whose_other_lines_never_came) {
    EXPECT_EQ(describe({"DMAR:[DMA Read] Request device [00:02.0] fault addr 1000"}),
              "intel 00:02.0: read of page 0x1000: unknown");
    EXPECT_EQ(
        describe({"arm-smmu-v3 a: event 0x10 received:", "arm-smmu-v3 a: 0x0000010000000010"}),
        "smmu-v3 unknown device: access: not-present (code 0x10), by a");
}

TEST(Decode, gives_up_waiting_after_some_noise) {
    std::vector<std::string> lines = {"DMAR:[DMA Read] Request device [00:02.0] fault addr 1000"};
    unsigned found = 0;
    const auto count = [&](const LogEvent&) { ++found; };
    Decoder decoder;
    decoder.line(lines.front(), count);
    for (int noise = 0; noise != 16; ++noise)
        decoder.line("noise", count);
    EXPECT_EQ(found, 1U);
}

TEST(Decode, no_problem_comes_of_noise) {
    for (const char* line :
         {"", " ", "DMAR: IOMMU enabled", "DMAR: DRHD: handling fault status reg 2",
          "DMAR: [DMA Write NO_PASID] Request device [zz:01.0] fault addr 0x1 [fault reason 0x05]",
          "DMAR: [DMA Write NO_PASID] Request device [00:20.0] fault addr 0x1 [fault reason 0x05]",
          "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr",
          "AMD-Vi: Event logged [", "Fault 15 devid:", "page fault from EP x",
          "net_ratelimit: 12 callbacks suppressed",
          "x map: IOMMU: iova=0xffffffffffffffff - 0x0 paddr=0x0 size=4096"})
        EXPECT_EQ(describe({line}), "") << line;
}

/// MOAT_FAULT_BYTES=100000000 for a long run.
TEST(Decode, reads_mixed_dialects_broken_at_random_columns) {
    const char* const wanted = std::getenv("MOAT_FAULT_BYTES");
    const std::uint64_t bytes = wanted == nullptr ? 500'000 : std::stoull(wanted);
    const std::uint64_t seed = 18;
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<std::string> lines;
    for (const char* file : {"golden_lines.txt", "pasted_lines.txt"})
        for (const Golden& golden : golden_lines(file))
            lines.insert(lines.end(), golden.lines.begin(), golden.lines.end());
    constexpr std::array<std::string_view, 4> prefixes = {
        "> > ", "\x1b[33m", "Nov 21 00:46:01 host kernel: ", "[   12.345678] "};
    LogGroups groups;
    LogContext context;
    std::uint64_t problems = 0;
    const auto sink = [&](const LogEvent& event) {
        const Record& record = event.record;
        ASSERT_EQ(record.precision == Precision::none, record.where.empty()) << event.raw;
        ASSERT_LE(event.text.size(), 3 * Decoder::longest_line);
        ASSERT_LE(event.numbers.size(), 16U);
        problems += is_problem(event.kind) ? 1 : 0;
        context.event(event);
        groups.add(event);
    };
    Decoder decoder;
    std::uint64_t read = 0;
    while (read < bytes && !testing::Test::HasFatalFailure()) {
        std::string text = lines[random() % lines.size()];
        if (random() % 4 == 0)
            text.insert(0, prefixes[random() % prefixes.size()]);
        if (random() % 16 == 0 && !text.empty())
            text[random() % text.size()] = static_cast<char>(random());
        for (const std::size_t column = 1 + random() % 160; !text.empty();) {
            const std::string line = text.substr(0, column);
            text.erase(0, column);
            context.line(line);
            decoder.line(line, sink);
            read += line.size() + 1;
        }
    }
    decoder.end(sink);
    EXPECT_GT(problems, bytes / 1000);
    EXPECT_LE(groups.all().size(), LogGroups::most);
    EXPECT_LE(decoder.counts().unknown, decoder.counts().lines);
}

TEST(Decode, broken_lines_give_a_record_or_none) {
    const std::uint64_t seed = 6;
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    const auto all = golden_lines();
    for (int round = 0; round != 20'000; ++round) {
        std::vector<std::string> lines = all[random() % all.size()].lines;
        for (std::string& line : lines) {
            for (std::uint64_t change = random() % 4; change != 0 && !line.empty(); --change)
                line[random() % line.size()] = static_cast<char>(random());
            if (random() % 4 == 0)
                line.resize(random() % (line.size() + 1));
        }
        for (const LogEvent& each : decode(lines)) {
            const bool has_address = each.record.precision != Precision::none;
            EXPECT_EQ(has_address, !each.record.where.empty());
            static_cast<void>(describe(each));
        }
    }
}

} // namespace

} // namespace moat::fault
