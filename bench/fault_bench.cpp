// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Diagnosis beside many mappings, counted in search steps; what a note in the history costs; and
// the speed of `moat explain` on a long log, beside grep's. Goals and what they mean:
// docs/design/fault.md.
#include "moat/fault/decode.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/report.hpp"

#include "fault/log_context.hpp"
#include "fault/log_group.hpp"
#include "harness.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;

constexpr std::uint64_t live_count = 100'000;
constexpr std::uint64_t past_count = 1'000'000;
/// Living and past mappings lie in turn within the same addresses.
constexpr std::uint64_t span = live_count << 20;

std::vector<fault::Mapping> living() {
    std::vector<fault::Mapping> mappings;
    for (std::uint64_t index = 0; index != live_count; ++index)
        mappings.push_back({.range = {Iova(index << 20), ByteCount(0x1000)}});
    return mappings;
}

/// A page somewhere that is no living mapping's.
IovaRange past_page(std::mt19937_64& random) {
    const std::uint64_t page = random() % (span >> 12);
    return {Iova((page | 1) << 12), ByteCount(0x1000)};
}

fault::Record record_at(std::uint64_t address) {
    return {.access = fault::Access::write,
            .precision = fault::Precision::page,
            .reason = fault::Reason::not_present,
            .where = {Iova(address & ~0xfffULL), ByteCount(0x1000)}};
}

void diagnosis(Suite& suite) {
    const std::string steps = "diagnose: most search steps, 100 K living and 1 M past mappings";
    const std::string time = "diagnose: the same";
    if (suite.only_counts() || (!suite.wants(steps) && !suite.wants(time)))
        return;
    std::mt19937_64 random(1);
    const std::vector<fault::Mapping> live = living();
    fault::History history(past_count);
    for (std::uint64_t index = 0; index != past_count; ++index)
        history.note({.range = past_page(random)}, {});
    history.catch_up();
    const fault::SortedMappings sorted(live);
    std::uint64_t most = 0;
    for (int question = 0; question != 200'000; ++question)
        most = std::max(most,
                        fault::diagnose(sorted, history, record_at(random() % span)).steps.count);
    suite.report({.name = steps, .value = static_cast<double>(most), .unit = "steps", .goal = 64});
    suite.compare(
        {.name = time, .subject = {.run = [&](std::uint64_t count) {
                           for (; count != 0; --count)
                               keep(fault::diagnose(sorted, history, record_at(random() % span)));
                       }}});
}

void noting(Suite& suite) {
    std::mt19937_64 random(2);
    fault::History history(1U << 16);
    std::vector<fault::Mapping> mappings(1U << 12);
    for (fault::Mapping& mapping : mappings)
        mapping.range = past_page(random);
    suite.compare({.name = "history: note an unmap",
                   .subject = {.run = [&](std::uint64_t count) {
                       for (; count != 0; --count)
                           history.note(mappings[count % mappings.size()], {});
                   }}});
    suite.compare({.name = "history: note and bring the index up to date",
                   .subject = {.run = [&](std::uint64_t count) {
                       for (; count != 0; --count)
                           history.note(mappings[count % mappings.size()], {});
                       history.catch_up();
                   }}});
}

constexpr std::uint64_t log_bytes = 50'000'000;

/// Boot messages, and a fault after each hundred of them.
void write_log(const std::filesystem::path& file) {
    constexpr std::array<std::string_view, 6> others = {
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
        "systemd[1]: Started Session 12 of user root.",
        "e1000e 0000:00:19.0 eth0: NIC Link is Up 1000 Mbps Full Duplex, Flow Control: Rx/Tx",
        "EXT4-fs (sda1): mounted filesystem with ordered data mode. Opts: (null)",
        "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
        "docker0: port 1(veth1234567) entered blocking state"};
    std::ofstream out(file);
    std::uint64_t written = 0;
    for (std::uint64_t line = 0; written < log_bytes; ++line) {
        std::string text = "[  " + std::to_string(1000 + line / 1000) + ".000001] ";
        if (line % 100 != 0)
            text += others[line % others.size()];
        else
            text += "DMAR: [DMA Write NO_PASID] Request device [02:00.0] fault addr " +
                    hexadecimal(0xf0000000 + line % 512 * 4096) +
                    " [fault reason 0x05] PTE Write access is not set";
        out << text << '\n';
        written += text.size() + 1;
    }
}

void read_log(const std::filesystem::path& file) {
    fault::LogContext context;
    fault::LogGroups groups;
    const auto sink = [&](const fault::LogEvent& event) {
        context.event(event);
        groups.add(event);
    };
    fault::Decoder decoder;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        context.line(line);
        decoder.line(line, sink);
    }
    decoder.end(sink);
    keep(groups.all().size());
}

double megabytes_a_second(const std::function<void()>& read) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    read();
    return log_bytes / 1e6 / std::chrono::duration<double>(Clock::now() - begin).count();
}

void explaining(Suite& suite) {
    const std::string name = "explain: read a log of 50 MB";
    if (suite.only_counts() || !suite.wants(name))
        return;
    const std::filesystem::path file =
        std::filesystem::temp_directory_path() /
        ("moat-bench-" + std::to_string(std::random_device()()) + ".log");
    write_log(file);
    const std::string grep = "grep -c -i iommu " + file.string() + " >/dev/null";
    std::array<double, 7> ours = {};
    std::array<double, 7> others = {};
    for (std::size_t at = 0; at != ours.size(); ++at) {
        ours[at] = megabytes_a_second([&] { read_log(file); });
        others[at] = megabytes_a_second([&] { keep(std::system(grep.c_str())); });
    }
    std::filesystem::remove(file);
    std::ranges::sort(ours);
    std::ranges::sort(others);
    suite.report({.name = name,
                  .value = ours[ours.size() / 2],
                  .unit = "MB/s",
                  .against = "grep -c -i iommu",
                  .against_value = others[others.size() / 2],
                  .better = Better::higher,
                  .goal = 0.1});
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("fault", argc, argv);
    diagnosis(suite);
    noting(suite);
    explaining(suite);
    return suite.finish();
}
