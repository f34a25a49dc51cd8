// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BarWork: the work that `moat stress bar-walk` repeats on its threads. stress.cpp has threads,
// progress, watchdog and report; bar_walk.hpp and kernel_bar_walk.hpp implement it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>

namespace moat::tools {

class BarWork {
  public:
    virtual ~BarWork() = default;
    BarWork(const BarWork&) = delete;
    BarWork& operator=(const BarWork&) = delete;

    /// Maps everything for DMA and unmaps it, once; one thread. Calls `step` to show progress.
    /// Return: the error that a caller of VFIO would get.
    virtual Result<void> round(FunctionRef<void()> step) = 0;

    /// One read of numa_maps, by any thread.
    virtual Result<void> report() = 0;

    /// Leaves mapped for DMA, in all rounds. None if nothing counts them.
    [[nodiscard]] virtual std::optional<std::uint64_t> leaves() const = 0;

    /// Leaves that readers removed, since no thread unmapped them. None if nothing counts
    /// them.
    [[nodiscard]] virtual std::optional<std::uint64_t> lost_leaves() const = 0;

    /// The number of maps that got EINVAL because a reader removed a leaf, and were retried.
    [[nodiscard]] virtual std::uint64_t retries() const = 0;

    /// The errno that a program sees, as "EINVAL".
    [[nodiscard]] virtual std::string errno_name(const Error& error) const = 0;

    /// The counts so far; any thread.
    [[nodiscard]] std::uint64_t rounds() const { return rounds_.load(relaxed); }

    /// Bytes mapped for DMA, in all rounds.
    [[nodiscard]] std::uint64_t bytes() const { return bytes_.load(relaxed); }

  protected:
    static constexpr auto relaxed = std::memory_order_relaxed;

    BarWork() = default;

    void count_round(std::uint64_t bytes) {
        bytes_.fetch_add(bytes, relaxed);
        rounds_.fetch_add(1, relaxed);
    }

  private:
    std::atomic<std::uint64_t> rounds_{0};
    std::atomic<std::uint64_t> bytes_{0};
};

} // namespace moat::tools
