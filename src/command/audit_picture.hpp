// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An audit as the data of a picture of kind "space" (docs/picture.md): addresses and times of its
// buffers, and the findings. picture/ draws it; `moat audit` writes it with --html and
// --trace.
#pragma once

#include "audit_report.hpp"

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace moat::tools {

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
