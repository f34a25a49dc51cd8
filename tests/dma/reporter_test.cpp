// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// MOAT_OPTIONS selects the form of reports, text or JSON, and prints the list of options.
#include "dma/reporter.hpp"

#include <cstdlib>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sstream>

namespace moat::dma {
namespace {

[[nodiscard]] std::expected<Options, std::string> with_variable(const char* text,
                                                                std::ostream& out) {
    ::setenv("MOAT_OPTIONS", text, 1);
    auto options = options_from_environment(out, {.level = Level::guard});
    ::unsetenv("MOAT_OPTIONS");
    return options;
}

const DriverError wrong_size = {
    .kind = DriverErrorKind::wrong_size,
    .range = {Iova(0x1000), ByteCount(0x1000)},
    .mapping = {.range = {Iova(0x1000), ByteCount(0x2000)}, .label = "command \"queue\""}};

TEST(Reporter, variable_is_read_over_the_defaults) {
    std::ostringstream out;
    EXPECT_EQ(options_from_environment(out, {.level = Level::exact})->level, Level::exact);
    EXPECT_EQ(with_variable("report=json", out)->report, ReportForm::json);
    EXPECT_EQ(with_variable("report=json", out)->level, Level::guard);
    EXPECT_FALSE(with_variable("report=xml", out));
    EXPECT_EQ(out.str(), "");
    EXPECT_TRUE(with_variable("help=1", out));
    EXPECT_EQ(out.str(), options_help());
}

TEST(Reporter, text_is_a_line_of_a_drivers_error_and_the_whole_report_of_a_fault) {
    std::ostringstream out;
    Reporter reporter(out, ReportForm::text);
    const Listener listener = reporter.listener();
    listener.driver_error(listener.context, wrong_size);
    EXPECT_EQ(out.str(), "moat: " + summary(wrong_size) + "\n");
    const fault::Diagnosis diagnosis;
    listener.fault(listener.context, diagnosis);
    EXPECT_TRUE(out.str().ends_with(fault::text_report(diagnosis)));
}

TEST(Reporter, json_is_a_line_each) {
    std::ostringstream out;
    Reporter reporter(out, ReportForm::json);
    const Listener listener = reporter.listener();
    listener.driver_error(listener.context, wrong_size);
    listener.fault(listener.context, {});
    std::istringstream lines(out.str());
    std::string line;
    ASSERT_TRUE(std::getline(lines, line));
    const auto error = nlohmann::json::parse(line);
    EXPECT_EQ(error["schema"], "moat.driver_error/1");
    EXPECT_EQ(error["kind"], "wrong-size");
    EXPECT_EQ(error["mapping"]["bytes"], 0x2000);
    EXPECT_EQ(error["label"], "command \"queue\"");
    EXPECT_EQ(error["unmaps_since"], nullptr);
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_EQ(nlohmann::json::parse(line)["schema"], "moat.fault/1");
    EXPECT_FALSE(std::getline(lines, line));
}

} // namespace
} // namespace moat::dma
