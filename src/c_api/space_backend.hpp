// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The part of a backend that is the same whatever the domain: calls become its space's, once there
// is one. soft_backend.cpp and vfio_backend.cpp add domain and devices.
#pragma once

#include "backend.hpp"

#include <atomic>
#include <utility>

namespace moat::c_api {

/// Whoever derives from it calls `end_space` before the domain ends.
template <class Space>
class SpaceBackend : public Backend {
  public:
    [[nodiscard]] Result<Limits> limits() final {
        return with<Limits>([](Space& space) -> Result<Limits> {
            return Limits{space.domain().limits(), space.options()};
        });
    }

    [[nodiscard]] Result<Iova> map(const dma::Memory& memory, dma::Direction direction,
                                   std::string_view label) final {
        return with<Iova>([&](Space& space) { return space.map(memory, direction, label); });
    }

    [[nodiscard]] Result<void> unmap(Iova iova, ByteCount size, dma::Direction direction) final {
        return with<void>([&](Space& space) { return space.unmap(iova, size, direction); });
    }

    [[nodiscard]] Result<void> sync_for_device(Iova iova, ByteCount offset, ByteCount size) final {
        return with<void>([&](Space& space) { return space.sync_for_device(iova, offset, size); });
    }

    [[nodiscard]] Result<void> sync_for_cpu(Iova iova, ByteCount offset, ByteCount size) final {
        return with<void>([&](Space& space) { return space.sync_for_cpu(iova, offset, size); });
    }

    [[nodiscard]] Result<void> flush() final {
        return with<void>([](Space& space) { return space.flush(); });
    }

    void end_space() final {
        space_.store(nullptr, std::memory_order_release);
        owner_.reset();
    }

  protected:
    void begin_space(std::unique_ptr<Space> space) {
        owner_ = std::move(space);
        space_.store(owner_.get(), std::memory_order_release);
    }

    /// None before `begin_space`.
    [[nodiscard]] Space* space() const { return space_.load(std::memory_order_acquire); }

  private:
    template <class Value, class Act>
    [[nodiscard]] Result<Value> with(Act&& act) {
        Space* const found = space();
        if (found == nullptr)
            return fail(ErrorCode::refused, "attach a device first: what can be mapped is known "
                                            "from then on");
        return act(*found);
    }

    std::unique_ptr<Space> owner_;
    std::atomic<Space*> space_{nullptr};
};

} // namespace moat::c_api
