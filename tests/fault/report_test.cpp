// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reports against golden files. MOAT_UPDATE_GOLDEN=1 writes the files anew: read the difference.
#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/report.hpp"

#include "mappings.hpp"

#include <array>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace moat::fault {

namespace {

const std::string folder = std::string(MOAT_TEST_DATA) + "/reports/";

void expect_golden(const std::string& name, const std::string& text) {
    if (std::getenv("MOAT_UPDATE_GOLDEN") != nullptr)
        std::ofstream(folder + name) << text;
    std::ifstream file(folder + name);
    std::stringstream golden;
    golden << file.rdbuf();
    EXPECT_EQ(text, golden.str()) << "MOAT_UPDATE_GOLDEN=1 accepts it";
}

const std::array<std::uintptr_t, 2> map_stack = {0x401010, 0x401200};
const std::array<std::uintptr_t, 1> unmap_stack = {0x401300};

/// Two functions at the first address, because one was inlined; a module alone at 0x401300.
void symbols(std::uintptr_t address, FrameSink sink) {
    if (address == 0x401010) {
        sink({.address = address, .function = "ring_map()", .file = "ring.cpp", .line = 20});
        sink({.address = address, .function = "start()", .file = "driver.cpp", .line = 7});
    } else if (address == 0x401300) {
        sink({.address = address, .module = "driver"});
    } else {
        sink({.address = address, .function = "main"});
    }
}

class Report : public testing::Test {
  protected:
    Report() {
        buffers[0].mapped = {.time_ns = 1'500'000'000, .thread = 7, .stack = map_stack};
        options.symbolise = symbols_ref;
        options.device = "edu";
        options.process_id = 4711;
    }

    Diagnosis find(const Record& record) {
        history.catch_up();
        return diagnose(SortedMappings(buffers), history, record);
    }

    std::array<Mapping, 4> buffers = {
        mapping(0x10000, 0x1000, "command ring", Allows::read_write, 0x1000),
        mapping(0x14000, 100, "", Allows::read),
        mapping(0x30000, 0x1000, "first"),
        mapping(0x31000, 0x1000, "second"),
    };
    History history{16};
    ReportOptions options;
    static constexpr auto symbols_ref = [](std::uintptr_t address, FrameSink sink) {
        symbols(address, sink);
    };
};

TEST_F(Report, shows_an_overflow) {
    Record record = exact(0x11010, 8);
    record.domain = 2;
    record.time_ns = 1'600'000'000;
    record.suppressed = 3;
    expect_golden("overflow.txt", text_report(find(record), options));
    expect_golden("overflow.json", json_report(find(record), options) + "\n");
}

TEST_F(Report, underflow_of_which_the_page_alone_is_known) {
    Record record = page(0xf000, Access::read);
    record.code = 6;
    expect_golden("underflow_page.txt", text_report(find(record), options));
}

TEST_F(Report, shows_an_overrun_of_a_buffer_smaller_than_its_page) {
    expect_golden("overflow_small.txt", text_report(find(starts(0x14064)), options));
}

TEST_F(Report, access_that_runs_over_the_end) {
    expect_golden("overrun.txt", text_report(find(exact(0x10ff0, 64)), options));
}

TEST_F(Report, names_both_mappings_of_a_crossing) {
    expect_golden("crossing.txt", text_report(find(exact(0x30f00, 0x200)), options));
}

TEST_F(Report, shows_a_use_after_unmap) {
    Mapping old = mapping(0x50000, 0x2000, "old ring");
    old.mapped = buffers[0].mapped;
    history.note(old, {.time_ns = 1'550'000'000, .thread = 8, .stack = unmap_stack});
    history.note(mapping(0x60000, 0x1000, ""), {});
    expect_golden("use_after_unmap.txt", text_report(find(exact(0x51800, 256)), options));
    expect_golden("use_after_unmap.json", json_report(find(exact(0x51800, 256)), options) + "\n");
}

TEST_F(Report, overflow_where_a_former_mapping_is_another_explanation) {
    history.note(mapping(0x11000, 0x1000, "older"), {});
    expect_golden("or_else.txt", text_report(find(exact(0x11000, 4)), options));
}

TEST_F(Report, shows_a_refused_permission) {
    expect_golden("permission.txt", text_report(find(page(0x14000)), options));
}

TEST_F(Report, shows_a_wild_access) {
    expect_golden("wild.txt", text_report(find(starts(0xdead0000, Access::unknown)), options));
}

TEST_F(Report, shows_a_device_that_is_not_attached) {
    const Record record = {.source = Source::stream(0x10), .reason = Reason::not_attached};
    expect_golden("not_attached.txt", text_report(find(record), {}));
}

TEST_F(Report, explains_a_refusal_of_what_is_mapped) {
    expect_golden("mapped.txt", text_report(find(exact(0x30000, 4)), {}));
}

TEST_F(Report, shows_poisoned_bytes) {
    Record record = exact(0x30000, 4);
    record.reason = Reason::out_of_bounds;
    expect_golden("poisoned.txt", text_report(find(record), {}));
}

TEST_F(Report, has_colour_only_where_asked) {
    const Diagnosis found = find(exact(0x11010, 8));
    EXPECT_EQ(text_report(found, options).find('\033'), std::string::npos);
    options.colour = Colour::ansi;
    EXPECT_NE(text_report(found, options).find("\033[1;31m==4711==ERROR"), std::string::npos);
}

TEST_F(Report, json_is_one_line_whatever_a_label_holds) {
    buffers[0].label = "quote\" newline\n not utf-8 \xff";
    const std::string line = json_report(find(exact(0x11010, 8)), options);
    EXPECT_EQ(line.find('\n'), std::string::npos);
    const auto json = nlohmann::json::parse(line);
    EXPECT_EQ(json["mapping"]["label"], "quote\" newline\n not utf-8 \uFFFD");
}

TEST_F(Report, draws_the_ends_of_the_address_space) {
    const std::uint64_t top = ~std::uint64_t{0} - 0xfff;
    const std::array<Mapping, 2> ends = {mapping(0, 0x1000, "zero", Allows::read, 0x1000),
                                         mapping(top, 0x1000, "top", Allows::read, 0x1000)};
    const SortedMappings live(ends);
    for (const Record& record : {exact(0, 4), exact(0x1000, 4), exact(top - 4, 4),
                                 exact(top + 0xffc, 4), exact(0, ~std::uint64_t{0})}) {
        const std::string text = text_report(diagnose(live, NoHistory{}, record), {});
        EXPECT_NE(text.find('^'), std::string::npos);
    }
}

} // namespace

} // namespace moat::fault
