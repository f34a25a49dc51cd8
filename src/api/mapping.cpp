// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mappings of moat.hpp: each call becomes its container's, as long as that lives.
#include "block.hpp"
#include "core.hpp"

#include <utility>

namespace moat {

namespace {

[[nodiscard, gnu::cold]] std::unexpected<Error> not_mapped() {
    return fail(ErrorCode::refused, "this is unmapped, or its container has ended");
}

/// Runs act(core, iova) for `bytes` bytes from `offset` on of what is mapped.
template <class Act>
[[nodiscard]] Result<void> within(const Mapping& mapping, std::uint64_t offset, std::size_t bytes,
                                  Act&& act) {
    api::Core* const core = mapping.core();
    if (core == nullptr)
        return not_mapped();
    if (offset > mapping.size() || bytes > mapping.size() - offset)
        return fail(ErrorCode::out_of_range, "the bytes are not inside of the mapping",
                    {"offset", offset}, {"bytes", bytes}, {"size", mapping.size()});
    return act(*core, mapping.iova() + offset);
}

} // namespace

Result<void> Mapping::unmap() {
    api::Core* const core = this->core();
    link_ = {};
    api::BlockShare share(std::exchange(block_, nullptr));
    if (core == nullptr)
        return not_mapped();
    Result<void> unmapped = core->unmap(iova_, size_, direction_);
    if (share.block() != nullptr)
        api::leave_behind(*core, share, unmapped);
    return unmapped;
}

std::uint64_t Mapping::release() {
    link_ = {};
    block_ = nullptr;
    return iova_;
}

Result<void> Mapping::sync_for_device(std::uint64_t offset, std::size_t bytes) {
    api::Core* const core = this->core();
    return core != nullptr ? core->sync(api::SyncFor::device, iova_, offset, bytes) : not_mapped();
}

Result<void> Mapping::sync_for_cpu(std::uint64_t offset, std::size_t bytes) {
    api::Core* const core = this->core();
    return core != nullptr ? core->sync(api::SyncFor::cpu, iova_, offset, bytes) : not_mapped();
}

Result<void> Mapping::poison(std::uint64_t offset, std::size_t bytes) {
    return within(*this, offset, bytes,
                  [&](api::Core& core, std::uint64_t iova) { return core.poison(iova, bytes); });
}

Result<void> Mapping::unpoison(std::uint64_t offset, std::size_t bytes) {
    return within(*this, offset, bytes,
                  [&](api::Core& core, std::uint64_t iova) { return core.unpoison(iova, bytes); });
}

Result<void> ListMapping::unmap() {
    api::Core* const core = range_.core();
    if (core == nullptr) {
        shares_.clear();
        return not_mapped();
    }
    Result<void> unmapped = core->unmap(range_.iova(), range_.size(), range_.direction());
    (void)range_.release();
    for (api::BlockShare& each : shares_)
        api::leave_behind(*core, each, unmapped);
    shares_.clear();
    return unmapped;
}

std::uint64_t ListMapping::release() {
    for (api::BlockShare& each : shares_)
        (void)each.release();
    shares_.clear();
    return range_.release();
}

Result<void> ListMapping::sync_for_device() {
    return sync(api::SyncFor::device);
}

Result<void> ListMapping::sync_for_cpu() {
    return sync(api::SyncFor::cpu);
}

Result<void> ListMapping::sync(api::SyncFor whom) {
    api::Core* const core = range_.core();
    if (core == nullptr)
        return not_mapped();
    if (!each_)
        return core->sync(whom, range_.iova(), 0, range_.size());
    for (const Segment& each : segments_)
        MOAT_TRY(core->sync(whom, each.iova.value(), 0, each.size.value()));
    return {};
}

} // namespace moat
