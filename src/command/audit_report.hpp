// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The output of `moat audit` for a device: tables and reports as text, lines of JSON
// (docs/report_schema.md), and the data of a picture of kind "space" (docs/picture.md), which
// picture/ draws and --html and --trace write. src/audit/ produces the findings.
#pragma once

#include "audit/audit.hpp"
#include "audit/subject.hpp"

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <ostream>
#include <string>
#include <vector>

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

class AuditPicture {
  public:
    /// Observes the next audit; this and `machine` must outlive it.
    void observe(machine::Machine& machine, audit::AuditOptions& options);

    /// Returns the observations, and starts over for the next audit.
    [[nodiscard]] nlohmann::ordered_json take(const Audited& audited);

  private:
    struct Row {
        std::string label;
        std::string operation;
        IovaRange range;
        std::int64_t placed_at;
        std::int64_t unmapped_at; ///< -1: never
        std::uint64_t case_number;
    };

    struct Mark {
        audit::Finding finding;
        std::size_t row;
        std::int64_t time;
    };

    /// An unlimited audit shows only the first ones.
    static constexpr std::size_t most_rows = 50'000;

    [[nodiscard]] std::int64_t since_begin(std::chrono::nanoseconds time) const {
        return (time - begin_).count();
    }

    machine::Machine* machine_ = nullptr;
    std::chrono::nanoseconds begin_{};
    std::uint64_t guard_ = 0;
    std::vector<Row> rows_;
    std::map<Iova, std::size_t> newest_; ///< by first byte
    std::vector<Mark> marks_;
    std::int64_t end_ = 0;
};

} // namespace moat::tools
