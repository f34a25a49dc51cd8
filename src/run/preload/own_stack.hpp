// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The program's stack, from the call or the fault that entered the library.
#pragma once

#include "run/stacks.hpp"

#include <cstdint>
#include <utility>

namespace moat::run {

/// Where the program called the library, or the instruction that faulted, and the stack pointer
/// there.
struct EntryPlace {
    std::uintptr_t address = 0;
    std::uintptr_t stack = 0;
    bool is_fault = false;
    bool operator==(const EntryPlace&) const = default;
};

/// The innermost Entry of this thread; address 0 outside.
extern thread_local constinit EntryPlace entered;

/// While one lives, its thread serves the program.
class Entry {
  public:
    explicit Entry(const EntryPlace& place) : before_(std::exchange(entered, place)) {}

    ~Entry() { entered = before_; }

    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

  private:
    EntryPlace before_;
};

/// The program's return addresses, innermost first, kept in `stacks`, the only one of the process.
/// Fast if they are those of a late call of this thread. Empty outside of an Entry.
[[nodiscard]] fault::StackView own_stack(Stacks& stacks);

} // namespace moat::run

/// The place from which the function that contains this was called.
#define MOAT_CALLED_FROM                                                                           \
    ::moat::run::EntryPlace {                                                                      \
        reinterpret_cast<std::uintptr_t>(__builtin_return_address(0)),                             \
            reinterpret_cast<std::uintptr_t>(__builtin_dwarf_cfa()), false                         \
    }
