// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A domain of a machine that is chosen at run time: what its functions' accesses are translated by.
// The engines behind it are iommu/'s or the kernel's; a machine makes one (machine.hpp).
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/result.hpp"
#include "moat/page_table/attributes.hpp"

#include <cstdint>
#include <span>

namespace moat::machine {

/// Constant for a domain's life.
struct DomainLimits {
    IovaRange aperture;                  ///< every mapping lies inside
    std::span<const IovaRange> reserved; ///< and outside of these: interrupt messages, and such
    std::uint64_t leaf_sizes = 0;  ///< bit n is set where a leaf may have 2^n bytes; lowest: a page
    Attributes known = read_write; ///< what a mapping may be given
};

/// Functions that are attached reach what is mapped here and nothing else. Thread-safe for ranges
/// that do not overlap. It is detached from every function before it ends.
class Domain {
  public:
    virtual ~Domain() = default;
    Domain(const Domain&) = delete;
    Domain& operator=(const Domain&) = delete;

    [[nodiscard]] virtual const DomainLimits& limits() const = 0;

    /// Maps [start, start + size) to shared memory from `physical` on (SharedMemory::physical), or
    /// to a register file of a peer. Both addresses and `size` are multiples of a page.
    /// Errors: empty, unaligned, overflow, out_of_range, overlap, unsupported, no_memory, io. A
    /// call that fails changed nothing.
    [[nodiscard]] virtual Result<void> map(Iova start, ByteCount size, PhysicalAddress physical,
                                           Attributes attributes) = 0;

    /// Unmaps what is mapped there; holes are no error. On return no access reaches the memory any
    /// more: cached translations are gone. Errors: empty, unaligned, overflow, out_of_range; io,
    /// after which the range must be taken for reachable still.
    [[nodiscard]] virtual Result<void> unmap(Iova start, ByteCount size) = 0;

  protected:
    Domain() = default;
};

} // namespace moat::machine
