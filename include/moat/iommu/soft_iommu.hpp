// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SoftIommu: the attachments of devices to domains. Devices reach memory through their lanes
// (soft_device.hpp); machine/soft and other device models own one.
#pragma once

#include "moat/iommu/soft_device.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

namespace moat::iommu {

/// Devices are blocked until attached. Thread-safe; call nothing from inside an access, anything
/// from a fault handler.
template <class Domain_, HostMemory Memory_ = OwnMemory>
class SoftIommu {
  public:
    using Domain = Domain_;
    using Memory = Memory_;
    using Device = SoftDevice<Domain, Memory>;
    using Sync = typename Device::Sync;
    using Attached = typename Device::Attached;

    explicit SoftIommu(Memory memory = {}) : memory_(std::move(memory)) {}

    SoftIommu(const SoftIommu&) = delete;
    SoftIommu& operator=(const SoftIommu&) = delete;

    /// Adds a blocked device, which lives as long as the IOMMU. Errors: overlap (the source
    /// exists).
    [[nodiscard]] Result<Device*> add_device(fault::Source source, FaultHandler handler = {}) {
        const ExclusiveLock lock(mutex_);
        if (devices_.contains(key(source)))
            return fail(ErrorCode::overlap, "a device of this source is there",
                        {"source", source.id()});
        const auto added = devices_.emplace(key(source), Entry(source, memory_, handler)).first;
        return added->second.device.get();
    }

    /// On return the device's accesses go through `domain`, which lives until the device is
    /// attached elsewhere or detached. Errors: not_found.
    [[nodiscard]] Result<void> attach(fault::Source source, Domain& domain) {
        return replace(source, {Attached::Kind::translated, &domain, 0});
    }

    /// Attaches the device to physical addresses. Errors: not_found.
    [[nodiscard]] Result<void> attach_identity(fault::Source source) {
        return replace(source, {Attached::Kind::identity, nullptr, 0});
    }

    /// On return the device reaches nothing. Allocates nothing. Errors: not_found.
    [[nodiscard]] Result<void> detach(fault::Source source) {
        const ExclusiveLock lock(mutex_);
        const auto found = devices_.find(key(source));
        if (found == devices_.end())
            return unknown(source);
        found->second.device->detach();
        found->second.attached.reset(); // no access uses it any more
        return {};
    }

    /// Passes on the faults of one device, oldest first, and removes them. Return: how many were
    /// lost because its queue was full. Errors: not_found.
    template <class Visit>
    [[nodiscard]] Result<std::uint64_t> take_faults(fault::Source source, Visit&& visit) {
        Device* device = nullptr;
        {
            const ExclusiveLock lock(mutex_);
            const auto found = devices_.find(key(source));
            if (found == devices_.end())
                return unknown(source);
            device = found->second.device.get();
        }
        std::uint64_t lost = 0;
        for (fault::Record record; device->faults().pop(record, lost);)
            visit(std::as_const(record));
        return lost;
    }

  private:
    struct Entry {
        std::unique_ptr<Device> device;
        std::unique_ptr<Attached> attached = {}; ///< null: blocked

        Entry(fault::Source source, const Memory& memory, FaultHandler handler)
            : device(std::make_unique<Device>(source, memory, handler)) {}
    };

    [[nodiscard]] static std::uint64_t key(fault::Source source) {
        return std::uint64_t{source.id()} | std::uint64_t{source.segment().value_or(0)} << 32 |
               static_cast<std::uint64_t>(source.kind()) << 48;
    }

    [[nodiscard]] static std::unexpected<Error> unknown(fault::Source source) {
        return fail(ErrorCode::not_found, "no device of this source", {"source", source.id()});
    }

    [[nodiscard]] Result<void> replace(fault::Source source, Attached next) {
        const ExclusiveLock lock(mutex_);
        const auto found = devices_.find(key(source));
        if (found == devices_.end())
            return unknown(source);
        next.serial = ++serial_;
        auto fresh = std::make_unique<Attached>(next);
        found->second.device->attach(*fresh);
        found->second.attached =
            std::move(fresh); // frees the old one, which no access uses any more
        return {};
    }

    const Memory memory_;
    typename Sync::Mutex mutex_;
    std::map<std::uint64_t, Entry> devices_ MOAT_GUARDED_BY(mutex_);
    std::uint64_t serial_ MOAT_GUARDED_BY(mutex_) = 0;
};

} // namespace moat::iommu
