// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reporter: a Listener that writes reports as MOAT_OPTIONS asks for: text, or lines of JSON. For
// programs that want to be told and have no handler of their own.
#pragma once

#include "moat/dma/driver_error.hpp"
#include "moat/dma/options.hpp"
#include "moat/fault/report.hpp"

#include <expected>
#include <iosfwd>
#include <mutex>
#include <string>

namespace moat::dma {

/// The options of the variable MOAT_OPTIONS over `defaults`; `help=1` in it writes the list of
/// options to `out`. Errors: parse_options'. Reads the environment: not while others change it.
[[nodiscard]] std::expected<Options, std::string>
options_from_environment(std::ostream& out, const Options& defaults = {});

/// Any thread may report; reports do not mix. Outlives the spaces that have its listener.
class Reporter {
  public:
    /// What `options` points to lives as long.
    Reporter(std::ostream& out, ReportForm form, const fault::ReportOptions& options = {})
        : out_(out), form_(form), options_(options) {}

    Reporter(const Reporter&) = delete;
    Reporter& operator=(const Reporter&) = delete;

    [[nodiscard]] Listener listener();

  private:
    void write(const std::string& report);

    std::ostream& out_;
    const ReportForm form_;
    const fault::ReportOptions options_;
    std::mutex mutex_;
};

/// `summary`, and the stacks that are known; lines, each with its end.
[[nodiscard]] std::string text_report(const DriverError& error,
                                      const fault::ReportOptions& options = {});

/// One line of JSON without its end, of schema moat.driver_error/1.
[[nodiscard]] std::string json_report(const DriverError& error);

} // namespace moat::dma
