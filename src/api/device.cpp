// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices, their BARs and their models: moat.hpp's classes over AttachedDevice.
#include "core.hpp"

#include <chrono>
#include <thread>

namespace moat::api {

namespace {

/// A number of the calling thread that no other living one has; not 0.
[[nodiscard]] std::uintptr_t this_thread() {
    thread_local const char mark = 0;
    return reinterpret_cast<std::uintptr_t>(&mark);
}

} // namespace

bool Turn::take() {
    const std::uintptr_t self = this_thread();
    std::uintptr_t nobody = 0;
    if (!owner_.compare_exchange_strong(nobody, self, std::memory_order_acquire) && nobody != self)
        return false;
    ++depth_;
    return true;
}

bool Turn::leave() {
    if (--depth_ != 0)
        return false;
    owner_.store(0, std::memory_order_release);
    return true;
}

namespace {

[[nodiscard]] std::unexpected<Error> not_attached() {
    return fail(ErrorCode::refused, "the device is detached, or its container has ended");
}

using Shared = std::shared_ptr<AttachedDevice>;

[[nodiscard]] bool is_usable(const Shared& device) {
    return device != nullptr && device->live.load(std::memory_order_acquire);
}

/// Runs act(device), an access of `bytes` bytes, in this thread's turn.
template <class Act>
[[nodiscard]] Result<void> access(const Shared& attached, std::size_t bytes, Act&& act) {
    // A copy, since a listener may end the Device.
    const Shared device = attached; // NOLINT(performance-unnecessary-copy-initialization)
    if (!is_usable(device))
        return not_attached();
    if (bytes == 0)
        return fail(ErrorCode::empty, "an access of no bytes");
    if (!device->turn.take())
        return fail(ErrorCode::busy, "another thread is using the device");

    struct Leave {
        AttachedDevice& device;

        ~Leave() {
            if (device.turn.leave() && device.abandoned)
                if (Core* const core = device.core)
                    core->abandon(device);
        }
    } const leave{*device};

    MOAT_LET(const Access transfer, act(*device));
    if (transfer.refused)
        return fail(ErrorCode::refused, "the IOMMU refused the access from a byte on",
                    {"done", transfer.done}, {"bytes", bytes});
    return {};
}

[[nodiscard]] Result<void> read_by(const Shared& device, std::uint64_t iova,
                                   std::span<std::byte> into) {
    return access(device, into.size(),
                  [&](AttachedDevice& self) { return self.read(Iova(iova), into); });
}

[[nodiscard]] Result<void> write_by(const Shared& device, std::uint64_t iova,
                                    std::span<const std::byte> from) {
    return access(device, from.size(),
                  [&](AttachedDevice& self) { return self.write(Iova(iova), from); });
}

/// Runs act(registers) where an access of `width` is possible at `offset`.
template <class Act>
[[nodiscard]] auto at(const Shared& device, machine::Registers& registers, std::uint64_t offset,
                      machine::Width width, Act&& act) -> decltype(act(registers)) {
    if (!is_usable(device))
        return not_attached();
    const auto bytes = static_cast<std::uint64_t>(width);
    const std::uint64_t size = registers.size().value();
    if (offset % bytes != 0)
        return fail(ErrorCode::unaligned, "an access is at a multiple of its width",
                    {"offset", offset}, {"width", bytes});
    if (offset >= size || bytes > size - offset)
        return fail(ErrorCode::out_of_range, "the access is not inside of the BAR",
                    {"offset", offset}, {"size", size});
    return act(registers);
}

template <class Value>
[[nodiscard]] Result<Value> load(const Shared& device, machine::Registers& registers,
                                 std::uint64_t offset) {
    constexpr auto width = static_cast<machine::Width>(sizeof(Value));
    return at(device, registers, offset, width, [&](machine::Registers& found) -> Result<Value> {
        return static_cast<Value>(found.read(offset, width));
    });
}

template <class Value>
[[nodiscard]] Result<void> store(const Shared& device, machine::Registers& registers,
                                 std::uint64_t offset, Value value) {
    constexpr auto width = static_cast<machine::Width>(sizeof(Value));
    return at(device, registers, offset, width, [&](machine::Registers& found) -> Result<void> {
        found.write(offset, width, value);
        return {};
    });
}

} // namespace
} // namespace moat::api

namespace moat {

using api::is_usable;
using api::not_attached;

Result<std::uint8_t> Bar::read8(std::uint64_t offset) const {
    return api::load<std::uint8_t>(device_, *registers_, offset);
}

Result<std::uint16_t> Bar::read16(std::uint64_t offset) const {
    return api::load<std::uint16_t>(device_, *registers_, offset);
}

Result<std::uint32_t> Bar::read32(std::uint64_t offset) const {
    return api::load<std::uint32_t>(device_, *registers_, offset);
}

Result<std::uint64_t> Bar::read64(std::uint64_t offset) const {
    return api::load<std::uint64_t>(device_, *registers_, offset);
}

Result<void> Bar::write8(std::uint64_t offset, std::uint8_t value) const {
    return api::store(device_, *registers_, offset, value);
}

Result<void> Bar::write16(std::uint64_t offset, std::uint16_t value) const {
    return api::store(device_, *registers_, offset, value);
}

Result<void> Bar::write32(std::uint64_t offset, std::uint32_t value) const {
    return api::store(device_, *registers_, offset, value);
}

Result<void> Bar::write64(std::uint64_t offset, std::uint64_t value) const {
    return api::store(device_, *registers_, offset, value);
}

std::uint64_t Bar::size() const {
    return is_usable(device_) ? registers_->size().value() : 0;
}

Result<std::span<std::byte>> Bar::memory() const {
    if (!is_usable(device_))
        return not_attached();
    return device_->bar_memory(index_);
}

Device& Device::operator=(Device&& other) noexcept {
    Device taken(std::move(other));
    device_.swap(taken.device_);
    return *this;
}

Device::~Device() {
    if (device_ == nullptr)
        return;
    if (api::Core* const core = device_->core)
        core->abandon(*device_);
}

Result<Bar> Device::bar(unsigned index) {
    if (!is_usable(device_))
        return not_attached();
    MOAT_LET(const auto registers, device_->bar(index));
    return Bar(device_, index, *registers);
}

Result<void> Device::read(std::uint64_t iova, std::span<std::byte> into) {
    return api::read_by(device_, iova, into);
}

Result<void> Device::write(std::uint64_t iova, std::span<const std::byte> from) {
    return api::write_by(device_, iova, from);
}

Result<unsigned> Device::enable_interrupts(unsigned wanted) {
    return is_usable(device_) ? device_->enable_interrupts(wanted) : not_attached();
}

Result<bool> Device::take_interrupt(unsigned vector) {
    return is_usable(device_) ? device_->take_interrupt(vector) : not_attached();
}

/// An interrupt is soon or late: sleep begins after a while of looking.
Result<bool> Device::wait_for_interrupt(unsigned vector, std::uint32_t longest_ms) {
    using Clock = std::chrono::steady_clock;
    const auto began = Clock::now();
    const auto end = began + std::chrono::milliseconds(longest_ms);
    for (;;) {
        const auto taken = take_interrupt(vector);
        const auto now = Clock::now();
        if (!taken || *taken || now >= end)
            return taken;
        if (now - began > std::chrono::microseconds(50))
            std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
}

Result<void> Device::raise_interrupt(unsigned vector) {
    return is_usable(device_) ? device_->raise_interrupt(vector) : not_attached();
}

Result<void> Device::detach() {
    if (!is_usable(device_))
        return not_attached();
    api::Core* const core = device_->core;
    if (core == nullptr)
        return not_attached();
    MOAT_TRY(core->detach(*device_));
    device_.reset();
    return {};
}

DeviceModel::~DeviceModel() {
    if (const auto device = device_.lock())
        device->forget_model();
}

Result<void> DeviceModel::read_memory(std::uint64_t iova, std::span<std::byte> into) {
    return api::read_by(device_.lock(), iova, into);
}

Result<void> DeviceModel::write_memory(std::uint64_t iova, std::span<const std::byte> from) {
    return api::write_by(device_.lock(), iova, from);
}

Result<void> DeviceModel::interrupt(unsigned vector) {
    const auto device = device_.lock();
    return is_usable(device) ? device->raise_interrupt(vector) : not_attached();
}

} // namespace moat
