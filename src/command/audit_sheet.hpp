// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Data sheets of `moat audit`: as JSON (docs/report_schema.md), as a page, as tables in the text
// output, and the comparison of two. src/audit/sheet.hpp measures them.
#pragma once

#include "audit/sheet.hpp"
#include "audit/subject.hpp"
#include "command/subcommands.hpp"

#include <nlohmann/json_fwd.hpp>
#include <ostream>
#include <string>

namespace moat::tools {

/// A line of `moat.sheet/1`.
[[nodiscard]] nlohmann::ordered_json sheet_json(const audit::Kind& kind,
                                                const machine::FunctionInfo& function,
                                                const audit::Sheet& sheet);

void print_sheet(std::ostream& out, const audit::Sheet& sheet);

/// A self-contained page of HTML.
[[nodiscard]] std::string sheet_page(const audit::Kind& kind, const audit::Sheet& sheet,
                                     const std::string& command);

/// Prints what grew from `old_file` to `new_file`. Return: `found` if the device reads or writes
/// further or later, or reports or recovers worse. Stops with `usage` at a file that is no sheet.
[[nodiscard]] Exit compare_sheets(const std::string& old_file, const std::string& new_file);

} // namespace moat::tools
