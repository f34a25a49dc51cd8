// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An audit as the data of a picture of kind "space" (docs/picture.md): where its buffers lay, when,
// and what was found. What is drawn of it, picture/ decides; `moat audit` writes it
// by --html and --trace.
#pragma once

#include "audit_report.hpp"

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace moat::tools {

class AuditPicture {
  public:
    /// Listens to an audit that is about to begin; outlives it, as `machine` does.
    void observe(machine::Machine& machine, audit::AuditOptions& options);

    /// What was observed; the next audit begins anew.
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

    /// Of an audit without end, the first show how it goes on.
    static constexpr std::size_t most_rows = 50'000;

    [[nodiscard]] std::int64_t since_begin(std::chrono::nanoseconds time) const {
        return (time - begin_).count();
    }

    machine::Machine* machine_ = nullptr;
    std::chrono::nanoseconds begin_{};
    std::uint64_t guard_ = 0;
    std::vector<Row> rows_;
    std::map<Iova, std::size_t> newest_; ///< by its first byte
    std::vector<Mark> marks_;
    std::int64_t end_ = 0;
};

} // namespace moat::tools
