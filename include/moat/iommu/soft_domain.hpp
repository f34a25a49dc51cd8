// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SoftDomain: a domain for devices in this process, with two additions to its tables for the DMA
// API: byte-precise bounds, and a handler of faults.
#pragma once

#include "moat/fault/record.hpp"
#include "moat/iommu/generations.hpp"
#include "moat/iommu/table_domain.hpp"

#include <atomic>
#include <cstdint>
#include <span>
#include <utility>

namespace moat::iommu {

/// Called on the device's thread after the refused access has ended, without a lock: it may map,
/// unmap, attach and detach. What `context` points to outlives every device that was ever attached.
struct FaultHandler {
    void (*call)(void* context, const fault::Record& record) = nullptr;
    void* context = nullptr;

    void operator()(const fault::Record& record) const {
        if (call != nullptr)
            call(context, record);
    }
};

struct SoftDomainOptions {
    FaultHandler handler = {};
    std::span<const IovaRange> reserved = {};
    unsigned address_bits = 57;
    /// Clear it for a domain that checks only pages, like hardware.
    bool byte_bounds = true;
};

template <class Tree_, Invalidator Invalidator_ = Generations<typename Tree_::Sync>>
class SoftDomain : public TableDomain<Tree_, Invalidator_> {
  public:
    using Base = TableDomain<Tree_, Invalidator_>;
    using typename Base::Tree;

    using typename Base::Table;

    explicit SoftDomain(Table table, const SoftDomainOptions& options = {})
        : Base(std::move(table), options.reserved, options.address_bits),
          handler_(options.handler) {
        this->limits_.byte_bounds = options.byte_bounds;
        this->limits_.in_process = true;
    }

    [[nodiscard]] const FaultHandler& handler() const { return handler_; }

    /// See BoundedDomain. No translations are cached while it lives.
    class BoundsRegistration {
      public:
        BoundsRegistration(BoundsRegistration&& other) noexcept
            : domain_(std::exchange(other.domain_, nullptr)) {}

        BoundsRegistration& operator=(BoundsRegistration&& other) noexcept {
            std::swap(domain_, other.domain_);
            return *this;
        }

        BoundsRegistration(const BoundsRegistration&) = delete;
        BoundsRegistration& operator=(const BoundsRegistration&) = delete;

        ~BoundsRegistration() {
            if (domain_ != nullptr)
                domain_->end_bounds();
        }

      private:
        friend SoftDomain;

        explicit BoundsRegistration(SoftDomain& domain) : domain_(&domain) {}

        SoftDomain* domain_;
    };

    [[nodiscard]] Result<BoundsRegistration> register_bounds(const ByteBounds& bounds) {
        if (!this->limits_.byte_bounds)
            return fail(ErrorCode::unsupported, "this domain checks pages only, not bytes");
        if (bounds_taken_.exchange(1, std::memory_order_acq_rel) != 0)
            return fail(ErrorCode::busy, "other bounds are registered already");
        bounds_ = bounds;
        asked_.store(&bounds_, std::memory_order_release);
        return BoundsRegistration(*this);
    }

    /// The bounds to check in an access, or nullptr. Valid inside the access.
    [[nodiscard, gnu::always_inline]] const ByteBounds* bounds() const {
        return asked_.load(std::memory_order_acquire);
    }

  private:
    using Sync = typename Tree::Sync;

    void end_bounds() {
        asked_.store(nullptr, std::memory_order_release);
        Sync::synchronize(); // accesses are read sections
        bounds_taken_.store(0, std::memory_order_release);
    }

    const FaultHandler handler_;
    ByteBounds bounds_; ///< written while `asked_` is null
    typename Sync::template Atomic<const ByteBounds*> asked_{nullptr};
    typename Sync::template Atomic<std::uint64_t> bounds_taken_{0};
};

} // namespace moat::iommu
