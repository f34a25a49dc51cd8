// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reaches: how far a device reads and writes beyond its buffers, found by moving guards away from
// them. A part of sheet.cpp's measurements.
#pragma once

#include "audit/sheet.hpp"
#include "audit/sheet_bench.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::audit {

inline constexpr std::string_view any_operation = "any";

/// What is known about accesses on one side of a kind of buffer.
struct ReadReach {
    std::uint64_t unseen = 0; ///< bytes between the buffer and the guard, the most of all runs
    bool is_blocked = false;
    bool is_exact = true;
    std::uint64_t value = 0;
    std::uint64_t resolution = 0;
};

struct Reach {
    Written written;
    bool wrote_beyond = false;
    std::array<ReadReach, 2> reads; ///< left, right
};

/// Lengths to measure: the shortest, one page, three (which may need a list), and the longest of
/// short ones.
[[nodiscard]] std::vector<ByteCount> sheet_lengths(const Operation& operation);

/// Where accesses reach, found by moving guards away from buffers.
class Reaches {
  public:
    using Key = std::pair<std::string_view, std::string_view>; ///< operation, label

    explicit Reaches(SheetBench& bench) : bench_(bench) {}

    Result<void> measure();

    [[nodiscard]] const std::map<Key, Reach>& all() const { return reaches_; }

    /// Starts a driver, runs each operation (or `only` one) at each length, and calls
    /// visit(key, spot) for each buffer after each run.
    template <class Visit>
    Result<void> each_run(Fit fit, Visit visit, std::string_view only = any_operation) {
        MOAT_TRY(bench_.start(fit));
        const auto operations = bench_.driver().operations();
        for (unsigned index = 0; index != operations.size(); ++index)
            for (const ByteCount length : sheet_lengths(operations[index])) {
                if (only != any_operation && only != operations[index].name)
                    continue;
                MOAT_LET(const Ran ran, bench_.run(index, length, fit));
                if (reaches_.empty() && ran.answer.verdict == Verdict::no_answer)
                    return fail(ErrorCode::io, "the device does not answer",
                                {"code", ran.answer.code});
                MOAT_TRY(bench_.settle({}));
                for (const Spot& each : ran.given)
                    visit(Key(operations[index].name, each.label), each);
                for (const Spot& each : bench_.kept())
                    visit(Key(any_operation, each.label), each);
            }
        return {};
    }

  private:
    Result<void> write_reaches();

    static std::uint64_t distance(const Spot& spot, Fit::Kind side) {
        return side == Fit::left ? spot.before() : spot.after();
    }

    Result<void> read_reaches(Fit::Kind side);

    [[nodiscard]] ReadReach& of(const Key& key, Fit::Kind side) {
        return reaches_[key].reads[side == Fit::left ? 0 : 1];
    }

    struct Probe {
        bool is_blocked = false;
        std::uint64_t distance = 0;
    };

    Result<Probe> probe_at(const Key& key, Fit fit);

    /// Finds the least distance of a guard that no read reaches: doubles it, then bisects.
    Result<void> search(const Key& key, Fit::Kind side, ReadReach& reads);

    SheetBench& bench_;
    std::map<Key, Reach> reaches_;
};

} // namespace moat::audit
