// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reporter: a Listener that writes reports in the form that MOAT_OPTIONS asks for: text, or lines
// of JSON. For programs without a handler of their own.
#pragma once

#include "moat/dma/driver_error.hpp"
#include "moat/dma/options.hpp"
#include "moat/fault/report.hpp"

#include <expected>
#include <iosfwd>
#include <mutex>
#include <string>

namespace moat::dma {

/// Reads the variable MOAT_OPTIONS over `defaults`; writes the list of options to `out` for
/// `help=1`. Errors: parse_options'. Call while no other thread changes the environment.
[[nodiscard]] std::expected<Options, std::string>
options_from_environment(std::ostream& out, const Options& defaults = {});

/// Thread-safe: reports do not mix. Outlives the spaces that use its listener.
class Reporter {
  public:
    /// What `options` points to outlives it.
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

/// `summary` and the known stacks, as lines with line ends.
[[nodiscard]] std::string text_report(const DriverError& error,
                                      const fault::ReportOptions& options = {});

/// One line of JSON without a line end, of schema moat.driver_error/1.
[[nodiscard]] std::string json_report(const DriverError& error);

} // namespace moat::dma
