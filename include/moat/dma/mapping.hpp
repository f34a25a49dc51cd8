// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mapping: an RAII handle; unmaps its memory at its end.
#pragma once

#include "moat/core/check.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/space.hpp"

#include <string_view>
#include <utility>

namespace moat::dma {

/// Its space outlives it. A failed unmap in the destructor is a programmer's error, except io: the
/// space then reports `not_invalidated`, and devices may still reach the memory. To handle that
/// error, call `unmap`.
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

    /// The device's address of the first byte.
    [[nodiscard]] Iova iova() const { return iova_; }

    [[nodiscard]] ByteCount size() const { return size_; }

    /// Errors: those of Space's functions of the same name.
    Result<void> sync_for_device() { return space_->sync_for_device(iova_, {}, size_); }

    Result<void> sync_for_cpu() { return space_->sync_for_cpu(iova_, {}, size_); }

    /// Unmaps now, so that the caller can handle an error. Errors: Space::unmap's; the destructor
    /// does not retry.
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
