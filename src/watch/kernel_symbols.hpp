// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KernelSymbols: names for the addresses of kernel stacks, from /proc/kallsyms.
#pragma once

#include "moat/fault/report.hpp"

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

  private:
    struct Symbol {
        std::uint64_t start = 0;
        std::uint32_t name_at = 0; ///< in `names_`
        std::uint32_t name_bytes = 0;
        std::uint32_t module = 0; ///< in `modules_`
    };

    std::vector<Symbol> symbols_; ///< by start
    std::string names_;
    std::vector<std::string> modules_; ///< the first one: the kernel itself, empty
};

} // namespace moat::watch
