// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// UnwindTable: the call frame information of a program's file: how the registers of a caller follow
// from those of a called function. The file is the program's, so each byte of it is suspect.
#pragma once

#include "moat/core/function_ref.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moat::run {

/// In DWARF's numbers: 6 is RBP, 7 RSP, 16 the return address.
struct FrameRegisters {
    static constexpr unsigned frame_pointer = 6;
    static constexpr unsigned stack_pointer = 7;
    static constexpr unsigned return_address = 16;
    std::array<std::uint64_t, 17> values = {};
};

class UnwindTable {
  public:
    /// The number at an address of the stack; nothing if there is none.
    using ReadStack = FunctionRef<std::optional<std::uint64_t>(std::uint64_t address)>;

    /// Empty if the file has no such information, or none that is understood.
    explicit UnwindTable(const std::string& path);

    /// What is added to the file's addresses where its part at `offset` is mapped at `start`.
    [[nodiscard]] std::uint64_t bias(std::uint64_t start, std::uint64_t offset) const;

    /// The caller's registers, of a frame at `code`, an address of the file. Nothing if the table
    /// has no entry, or the frame is the outermost.
    [[nodiscard]] std::optional<FrameRegisters> step(const FrameRegisters& frame,
                                                     std::uint64_t code, ReadStack stack) const;

  private:
    struct Segment {
        std::uint64_t offset = 0; ///< in the file
        std::uint64_t address = 0;
        std::uint64_t bytes = 0;
    };

    struct Function {
        std::uint64_t start = 0;
        std::uint64_t entry = 0; ///< its address
    };

    void index_functions();

    std::vector<Segment> segments_;   ///< loaded ones
    std::vector<std::byte> bytes_;    ///< .eh_frame
    std::uint64_t address_ = 0;       ///< of its first byte
    std::vector<Function> functions_; ///< sorted
};

} // namespace moat::run
