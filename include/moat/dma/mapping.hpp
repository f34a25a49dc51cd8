// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mapping: memory that is mapped for as long as this object lives.
// A user's handle; the work is space.hpp's.
#pragma once

#include "moat/core/check.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/space.hpp"

#include <string_view>
#include <utility>

namespace moat::dma {

/// Ends before its space. A refusal to unmap at the end is a programmer's error. An IOMMU that does
/// not answer is none: the space reports `not_invalidated`, and a device may still reach the
/// memory; a driver that must know calls `unmap`.
template <class Space>
class Mapping {
  public:
    /// Errors: Space::map's.
    [[nodiscard]] static Result<Mapping> create(Space& space, const Memory& memory,
                                                Direction direction, std::string_view label = {}) {
        const Result<Iova> iova = space.map(memory, direction, label);
        if (!iova)
            return std::unexpected(iova.error());
        return Mapping(space, *iova, memory.size(), direction);
    }

    Mapping(Mapping&& other) noexcept
        : space_(std::exchange(other.space_, nullptr)), iova_(other.iova_), size_(other.size_),
          direction_(other.direction_) {}

    Mapping& operator=(Mapping&&) = delete;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;

    ~Mapping() {
        if (space_ == nullptr)
            return;
        const Result<void> done = space_->unmap(iova_, size_, direction_);
        MOAT_CHECK(done || done.error().code() == ErrorCode::io, "what was mapped is unmapped");
    }

    /// What the device is told.
    [[nodiscard]] Iova iova() const { return iova_; }

    [[nodiscard]] ByteCount size() const { return size_; }

    /// Errors: Space's of the same name.
    Result<void> sync_for_device() { return space_->sync_for_device(iova_, {}, size_); }

    Result<void> sync_for_cpu() { return space_->sync_for_cpu(iova_, {}, size_); }

    /// Undoes the mapping now, where an error can be answered. Errors: Space::unmap's, after which
    /// nothing is tried again.
    Result<void> unmap() { return std::exchange(space_, nullptr)->unmap(iova_, size_, direction_); }

  private:
    Mapping(Space& space, Iova iova, ByteCount size, Direction direction)
        : space_(&space), iova_(iova), size_(size), direction_(direction) {}

    Space* space_;
    Iova iova_;
    ByteCount size_;
    Direction direction_;
};

} // namespace moat::dma
