// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// BarWork: the work that `moat stress bar-walk` repeats on its threads: the reproducer of the
// page-walk race. It maps BARs for DMA and unmaps them in a loop while readers report. stress.cpp
// has threads, progress, watchdog and report; bar_walk.cpp and kernel_bar_walk.cpp implement it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include "machine/pci.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
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

    struct Counts {
        /// Leaves mapped for DMA, in all rounds. None if nothing counts them.
        std::optional<std::uint64_t> leaves = {};
        /// Leaves that readers removed, since no thread unmapped them. None likewise.
        std::optional<std::uint64_t> lost_leaves = {};
        /// Maps that got EINVAL because a reader removed a leaf, and were retried.
        std::uint64_t retries = 0;
    };

    /// The counts so far; any thread.
    [[nodiscard]] virtual Counts counts() const = 0;

    /// The size of the large BAR.
    [[nodiscard]] virtual ByteCount bar() const = 0;

    /// The errno that a program sees, as "EINVAL".
    [[nodiscard]] virtual std::string errno_name(const Error& error) const = 0;

    /// So far; any thread.
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

inline constexpr ByteCount largest_bar{1ULL << 40};

/// On this library's own address space and container. The second of the three BARs has `bar` bytes,
/// a multiple of 4 KiB, `largest_bar` at most.
[[nodiscard]] std::unique_ptr<BarWork> bar_walk(ByteCount bar);

/// On this host's kernel: the named function, or the bound one with the largest BAR whose reads
/// have no effect (prefetchable); its address goes to `device`. The caller checks
/// kernel_vulnerability.hpp first. Errors: VfioMachine's; not_found (no such BAR).
[[nodiscard]] Result<std::unique_ptr<BarWork>> kernel_bar_walk(std::optional<machine::Bdf> wanted,
                                                               machine::Bdf& device);

} // namespace moat::tools
