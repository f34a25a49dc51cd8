// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SoftDomain: a domain that devices in this process reach memory through, with what the DMA API
// may ask beyond tables: byte-precise bounds, and word of faults.
#pragma once

#include "moat/fault/record.hpp"
#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"

namespace moat::iommu {

/// Called on the device's thread after the access that was refused has ended, with no lock held: it
/// may map, unmap, attach and detach. What `context` points to outlives every device that was ever
/// attached.
struct FaultHandler {
    void (*call)(void* context, const fault::Record& record) = nullptr;
    void* context = nullptr;

    void operator()(const fault::Record& record) const {
        if (call != nullptr)
            call(context, record);
    }
};

/// Bounds that are finer than pages: how many of the bytes from `start` on, `size` at most, lie in
/// the buffer that `start` lies in. Called inside accesses, by any thread: it takes no lock under
/// which someone unmaps.
struct ByteBounds {
    ByteCount (*inside)(void* context, Iova start, ByteCount size) = nullptr;
    void* context = nullptr;
};

struct SoftDomainOptions {
    FaultHandler handler = {};
    /// Where set, translations are not cached: every access asks.
    ByteBounds bounds = {};
    std::span<const IovaRange> reserved = {};
    unsigned address_bits = 57;
};

template <class Tree_, Invalidator Invalidator_ = Generations<typename Tree_::Sync>>
class SoftDomain : public TableDomain<Tree_, Invalidator_> {
  public:
    using Base = TableDomain<Tree_, Invalidator_>;
    using typename Base::Tree;

    using typename Base::Table;

    explicit SoftDomain(Table table, const SoftDomainOptions& options = {})
        : Base(std::move(table), options.reserved, options.address_bits), handler_(options.handler),
          bounds_(options.bounds) {}

    [[nodiscard]] const FaultHandler& handler() const { return handler_; }

    [[nodiscard]] const ByteBounds& bounds() const { return bounds_; }

    /// Before any device is attached.
    void set_bounds(const ByteBounds& bounds) { bounds_ = bounds; }

  private:
    const FaultHandler handler_;
    ByteBounds bounds_;
};

} // namespace moat::iommu
