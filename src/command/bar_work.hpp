// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BarWork: what `moat stress bar-walk` repeats on its threads, wherever the BAR is. Threads,
// progress, watchdog and report are stress.cpp's; bar_walk.hpp and kernel_bar_walk.hpp model it.
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

    /// Maps all for DMA and unmaps it, once; one thread. Calls `step` where it has come further.
    /// Return: the error that VFIO's caller would meet.
    virtual Result<void> round(FunctionRef<void()> step) = 0;

    /// One read of numa_maps, by any thread.
    virtual Result<void> report() = 0;

    /// Leaves that were mapped for DMA, in all rounds. None where nobody counts them.
    [[nodiscard]] virtual std::optional<std::uint64_t> leaves() const = 0;

    /// Leaves that were gone though nobody unmapped them: taken by readers. None where nobody
    /// counts them.
    [[nodiscard]] virtual std::optional<std::uint64_t> lost_leaves() const = 0;

    /// How often a map met EINVAL because a reader took a leaf, and was tried again.
    [[nodiscard]] virtual std::uint64_t retries() const = 0;

    /// The errno that a program sees, as "EINVAL".
    [[nodiscard]] virtual std::string errno_name(const Error& error) const = 0;

    /// What was counted so far, by any thread.
    [[nodiscard]] std::uint64_t rounds() const { return rounds_.load(relaxed); }

    /// Bytes that were mapped for DMA, in all rounds.
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
