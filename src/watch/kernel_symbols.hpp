// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KernelSymbols: names for the addresses of kernel stacks, from /proc/kallsyms.
#pragma once

#include "moat/fault/report.hpp"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moat::watch {

/// A fault::Symbolise. Allocates about 10 MiB for a distribution's kernel.
class KernelSymbols {
  public:
    /// The symbols of the text of a kallsyms file; skips other lines.
    explicit KernelSymbols(std::string_view kallsyms);

    /// Reads `root`/proc/kallsyms. Empty if it cannot be read, or shows addresses as zeros because
    /// the reader is not root.
    [[nodiscard]] static KernelSymbols read(const std::filesystem::path& root = "/");

    [[nodiscard]] bool empty() const { return symbols_.empty(); }

    /// Passes on one frame: "edu_map_one+0xbb [edu_test]", or the address alone; none for the
    /// functions that write trace events, with which stacks begin.
    void operator()(std::uintptr_t address, fault::FrameSink sink) const;

    [[nodiscard]] bool knows(std::uintptr_t address) const { return find(address) != nullptr; }

  private:
    struct Symbol {
        std::uint64_t start = 0;
        std::uint32_t name_at = 0; ///< in `names_`
        std::uint32_t name_bytes = 0;
        std::uint32_t module = 0; ///< in `modules_`
    };

    /// The function of an address; nullptr if there is none.
    [[nodiscard]] const Symbol* find(std::uintptr_t address) const;

    std::vector<Symbol> symbols_; ///< by start
    std::string names_;
    std::vector<std::string> modules_; ///< the first one: the kernel itself, empty
};

/// The same for a running kernel, which loads modules: reads the symbols at the first use, and
/// again, once a second at most, when it meets an address that it does not know.
class CurrentKernelSymbols {
  public:
    void operator()(std::uintptr_t address, fault::FrameSink sink);

  private:
    using Clock = std::chrono::steady_clock;

    KernelSymbols symbols_{""};
    Clock::time_point read_again_at_ = {};
};

} // namespace moat::watch
