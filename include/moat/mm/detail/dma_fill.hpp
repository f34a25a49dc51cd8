// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Fill: the steps of one DMA map: fault in a leaf, and map it for the device under the lock of its
// block. So no zap can come between, and no second look-up is needed. DmaMap::map_dma calls it.
#pragma once

#include "moat/mm/address_space.hpp"
#include "moat/mm/detail/dma_mapping.hpp"

#include <cstdint>
#include <utility>

namespace moat::mm {

template <class Space, class Domain>
class Fill {
  public:
    using Sync = typename Space::Sync;
    using RunNode = Run<Sync>;

    /// Fills `mapping`, whose runs are empty; at most `lockable` bytes of RAM are pinned.
    Fill(Space& space, Domain& domain, DmaMapping<Sync>& mapping, ByteCount lockable)
        : space_(space), domain_(domain), mapping_(mapping), lockable_(lockable) {}

    ~Fill() {
        if (spare_ != nullptr)
            Sync::destroy(spare_);
    }

    Fill(const Fill&) = delete;
    Fill& operator=(const Fill&) = delete;

    /// After an error the mapping has the runs that were mapped before it.
    [[nodiscard]] Result<void> run(VirtualAddress address) {
        const std::uint64_t size = mapping_.range.size().value();
        for (std::uint64_t offset = 0; offset != size; offset += done_) {
            MOAT_TRY(step(VirtualAddress(address.value() + offset), offset));
            ++steps_;
        }
        return {};
    }

    [[nodiscard]] std::uint64_t steps() const { return steps_; }

    [[nodiscard]] ByteCount pinned() const { return pinned_; }

  private:
    [[nodiscard]] Result<void> step(VirtualAddress address, std::uint64_t offset) {
        // Not under the lock of a block.
        if (spare_ == nullptr)
            spare_ = Sync::template make<RunNode>();
        if (spare_ == nullptr)
            return fail(ErrorCode::no_memory, "no memory to record a run of leaves");
        Result<void> taken;
        auto take = [&](const LeafView& leaf) { taken = this->take(leaf, address, offset); };
        // A device that only reads must see later writes of the process: no zero page.
        auto fault = space_.with_leaf(address, Access::write, take);
        if (!fault && fault.error().code() == ErrorCode::refused &&
            !has(mapping_.permissions, Attributes::write))
            fault = space_.with_leaf(address, Access::read, take);
        return fault ? taken : std::unexpected(fault.error());
    }

    /// Under the lock of the leaf's block.
    [[nodiscard]] Result<void> take(const LeafView& leaf, VirtualAddress address,
                                    std::uint64_t offset) {
        auto& memory = space_.memory();
        const std::uint64_t inside = leaf.range().last().value() - address.value() + 1;
        const std::uint64_t left = mapping_.range.size().value() - offset;
        *spare_ = {.start = Iova(mapping_.range.start().value() + offset),
                   .physical = leaf.physical_of(address),
                   .part = ByteCount(inside < left ? inside : left),
                   .parts = 1,
                   .region = memory.region_at(leaf.physical)};
        const bool locks = spare_->region == nullptr;
        if (locks && spare_->part.value() > lockable_.value() - pinned_.value())
            return fail(ErrorCode::no_memory, "the limit of locked memory is reached",
                        {"wanted", spare_->part.value()}, {"pinned", pinned_.value()},
                        {"lockable", lockable_.value()});
        MOAT_TRY(domain_.map(spare_->start, spare_->part, spare_->physical, mapping_.permissions));
        memory.hold(spare_->physical);
        done_ = spare_->part.value();
        if (locks)
            pinned_ += spare_->part;
        note();
        return {};
    }

    /// Adds `spare_` to the mapping.
    void note() {
        if (mapping_.last != nullptr && mapping_.last->goes_on_with(*spare_)) {
            ++mapping_.last->parts;
            return;
        }
        RunNode*& link = mapping_.last != nullptr ? mapping_.last->next : mapping_.first;
        link = spare_;
        mapping_.last = std::exchange(spare_, nullptr);
    }

    Space& space_;
    Domain& domain_;
    DmaMapping<Sync>& mapping_;
    const ByteCount lockable_;
    RunNode* spare_ = nullptr;
    std::uint64_t done_ = 0; ///< by the last step
    std::uint64_t steps_ = 0;
    ByteCount pinned_ = ByteCount(0);
};

} // namespace moat::mm
