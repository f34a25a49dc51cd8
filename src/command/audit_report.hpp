// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The output of `moat audit` for a device: tables and reports as text, and lines of JSON
// (docs/report_schema.md). src/audit/ produces the findings.
#pragma once

#include "audit/audit.hpp"
#include "audit/subject.hpp"

#include <ostream>
#include <string>

namespace moat::tools {

/// The context of a device's report.
struct Audited {
    const audit::Kind& kind;
    const audit::DeviceReport& report;
    std::string command; ///< "moat audit ..." without the cases
    double seconds = 0;
};

/// "moat audit --machine soft --device nvme --seed 7 --case 12-13"
[[nodiscard]] std::string command_for(const Audited& audited, const audit::Finding& finding);

void print_text(std::ostream& out, const Audited& audited);
void print_json(std::ostream& out, const Audited& audited);

} // namespace moat::tools
