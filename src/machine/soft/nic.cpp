// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The card's registers: features, status, queues, notifications, and where each lies.
#include "machine/soft/nic.hpp"

#include "machine/soft/nic_registers.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace moat::machine::soft {

namespace {

// Windows of BAR 0, a page each so that a client can map them apart.
constexpr std::uint64_t window_bytes = 0x1000;

enum WindowKind : std::uint8_t { common_window, causes_window, device_window, notify_window };

constexpr std::uint64_t windows = 4;
constexpr std::uint64_t notify_step = 4; ///< between the doorbells of queues

/// A MAC address, a link's state; version 1, and addresses that an IOMMU translates.
constexpr std::array<std::uint32_t, 2> offered = {1U << 5 | 1U << 16, 1U << 0 | 1U << 1};
constexpr std::uint32_t version_1 = 1U << 0; // of the second word

constexpr std::uint16_t link_is_up = 1;
constexpr std::uint16_t no_virtio_vector = 0xffff;

/// The common configuration, in its layout.
struct Common {
    std::uint32_t device_feature_select;
    std::uint32_t device_feature;
    std::uint32_t driver_feature_select;
    std::uint32_t driver_feature;
    std::uint16_t config_vector;
    std::uint16_t queues;
    std::uint8_t status;
    std::uint8_t generation;
    std::uint16_t queue_select;
    std::uint16_t queue_size;
    std::uint16_t queue_vector;
    std::uint16_t queue_enable;
    std::uint16_t queue_notify_offset;
    std::uint64_t descriptors;
    std::uint64_t available;
    std::uint64_t used;
};

static_assert(sizeof(Common) == 56 && offsetof(Common, used) == 48);

struct DeviceConfiguration {
    Nic::MacAddress mac;
    std::uint16_t status;
};

static_assert(sizeof(DeviceConfiguration) == 8);

/// The register at `offset` of `bytes`; 0 past their end.
[[nodiscard]] std::uint64_t register_at(std::span<const std::byte> bytes, std::uint64_t offset,
                                        Width width) {
    std::uint64_t value = 0;
    if (offset < bytes.size())
        std::memcpy(&value, bytes.data() + offset,
                    std::min<std::size_t>(static_cast<std::size_t>(width), bytes.size() - offset));
    return value;
}

[[nodiscard]] std::uint16_t shown(unsigned vector) {
    return vector == BusMaster::no_vector ? no_virtio_vector : static_cast<std::uint16_t>(vector);
}

[[nodiscard]] std::uint32_t feature_word(const std::array<std::uint32_t, 2>& words,
                                         std::uint32_t index) {
    return index < words.size() ? words[index] : 0;
}

void set_half(std::uint64_t& whole, bool high, std::uint64_t half) {
    const unsigned shift = high ? 32 : 0;
    whole = (whole & ~(std::uint64_t{0xffff'ffff} << shift)) | half << shift;
}

} // namespace

FunctionInfo Nic::info() const {
    FunctionInfo info;
    info.vendor = 0x1af4;
    info.device = 0x1041;
    info.class_code = 0x020000;
    info.bars[0] = {.kind = BarKind::memory64, .size = ByteCount(windows * window_bytes)};
    return info;
}

/// 4.1.4: where each structure lies.
std::vector<VendorCapability> Nic::vendor_capabilities() const {
    const auto at = [](std::uint8_t type, WindowKind window, std::uint64_t bytes) {
        constexpr std::uint8_t length = 16;
        VendorCapability capability = {length, type, 0, 0, 0, 0};
        for (const std::uint64_t number : {window * window_bytes, bytes})
            for (unsigned shift = 0; shift != 32; shift += 8)
                capability.push_back(static_cast<std::uint8_t>(number >> shift));
        return capability;
    };
    VendorCapability notify = at(2, notify_window, queue_count * notify_step);
    notify.insert(notify.end(), {notify_step, 0, 0, 0});
    notify.front() = 20;
    return {at(1, common_window, sizeof(Common)), std::move(notify), at(3, causes_window, 1),
            at(4, device_window, sizeof(DeviceConfiguration))};
}

std::uint64_t Nic::read(unsigned bar, std::uint64_t offset, Width width) {
    if (bar != 0)
        return ~std::uint64_t{0};
    const std::uint64_t inside = offset % window_bytes;
    switch (offset / window_bytes) {
    case common_window:
        return register_at(common(), inside, width);
    case causes_window: // reading acknowledges them
        return inside == 0 ? std::exchange(causes_, std::uint8_t{0}) : 0;
    case device_window: {
        const DeviceConfiguration configuration{.mac = mac_, .status = link_is_up};
        return register_at(std::as_bytes(std::span(&configuration, 1)), inside, width);
    }
    default:
        return 0;
    }
}

std::array<std::byte, 56> Nic::common() const {
    Common common{};
    common.device_feature_select = device_feature_select_;
    common.device_feature = feature_word(offered, device_feature_select_);
    common.driver_feature_select = driver_feature_select_;
    common.driver_feature = feature_word(driver_features_, driver_feature_select_);
    common.config_vector = shown(config_vector_);
    common.queues = queue_count;
    common.status = status_;
    common.queue_select = selected_;
    if (selected_ < queue_count) {
        const QueueRegisters& queue = queues_[selected_];
        common.queue_size = static_cast<std::uint16_t>(queue.place.entries);
        common.queue_vector = shown(queue.vector);
        common.queue_enable = queue.queue ? 1 : 0;
        common.queue_notify_offset = selected_;
        common.descriptors = queue.place.descriptors;
        common.available = queue.place.available;
        common.used = queue.place.used;
    }
    return std::bit_cast<std::array<std::byte, sizeof(Common)>>(common);
}

void Nic::write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) {
    if (bar != 0)
        return;
    const std::uint64_t inside = offset % window_bytes;
    if (offset / window_bytes == notify_window)
        return notify(inside / notify_step, value);
    if (offset / window_bytes != common_window)
        return;
    if (width != Width::bits64)
        return write_common(inside, width, value);
    write_common(inside, Width::bits32, value & 0xffff'ffff);
    write_common(inside + 4, Width::bits32, value >> 32);
}

/// An access of another width than the register's does nothing.
void Nic::write_common(std::uint64_t offset, Width width, std::uint64_t value) {
    const auto is = [&](std::size_t at, Width wanted) { return offset == at && width == wanted; };
    if (is(offsetof(Common, device_feature_select), Width::bits32))
        device_feature_select_ = static_cast<std::uint32_t>(value);
    else if (is(offsetof(Common, driver_feature_select), Width::bits32))
        driver_feature_select_ = static_cast<std::uint32_t>(value);
    else if (is(offsetof(Common, driver_feature), Width::bits32) &&
             driver_feature_select_ < driver_features_.size())
        driver_features_[driver_feature_select_] = static_cast<std::uint32_t>(value);
    else if (is(offsetof(Common, config_vector), Width::bits16))
        config_vector_ = vector_for(value);
    else if (is(offsetof(Common, status), Width::bits8))
        set_status(static_cast<std::uint8_t>(value));
    else if (is(offsetof(Common, queue_select), Width::bits16))
        selected_ = static_cast<std::uint16_t>(value);
    else if (selected_ < queue_count)
        write_queue(queues_[selected_], offset, width, value);
}

void Nic::write_queue(QueueRegisters& queue, std::uint64_t offset, Width width,
                      std::uint64_t value) {
    const auto is = [&](std::size_t at) { return offset == at && width == Width::bits16; };
    if (is(offsetof(Common, queue_vector))) {
        queue.vector = vector_for(value);
    } else if (queue.queue) { // the rest is fixed while it is enabled
        return;
    } else if (is(offsetof(Common, queue_size))) {
        if (std::has_single_bit(value) && value <= VirtioQueue::most_entries)
            queue.place.entries = static_cast<unsigned>(value);
    } else if (is(offsetof(Common, queue_enable))) {
        if (value == 1)
            queue.queue.emplace(queue.place);
    } else if (width == Width::bits32 && offset >= offsetof(Common, descriptors) &&
               offset < sizeof(Common)) {
        const std::array places = {&queue.place.descriptors, &queue.place.available,
                                   &queue.place.used};
        const std::uint64_t half = (offset - offsetof(Common, descriptors)) / 4;
        set_half(*places[half / 2], half % 2 != 0, value);
    }
}

unsigned Nic::vector_for(std::uint64_t value) const {
    return value < vectors() ? static_cast<unsigned>(value) : BusMaster::no_vector;
}

void Nic::set_status(std::uint8_t status) {
    using namespace nic_status;
    if (status == 0)
        return stop();
    const bool was_running = (status_ & driver_ok) != 0;
    if ((status & features_ok) != 0 && !features_are_acceptable())
        status &= static_cast<std::uint8_t>(~features_ok);
    status_ = status | (status_ & needs_reset);
    if (was_running || (status_ & driver_ok) == 0)
        return;
    for (unsigned index = 0; index != queue_count; ++index)
        if (!queues_[index].queue)
            remark({.mistake = Mistake::enabled_before_queues,
                    .queue = index,
                    .value = offsetof(Common, queue_enable)});
}

bool Nic::features_are_acceptable() const {
    return (driver_features_[0] & ~offered[0]) == 0 && (driver_features_[1] & ~offered[1]) == 0 &&
           (driver_features_[1] & version_1) != 0;
}

bool Nic::is_running() const {
    using namespace nic_status;
    return (status_ & (driver_ok | needs_reset)) == driver_ok;
}

void Nic::notify(std::uint64_t queue, std::uint64_t value) {
    const auto index = static_cast<unsigned>(queue);
    if ((status_ & nic_status::driver_ok) == 0)
        remark({.mistake = Mistake::doorbell_while_disabled, .queue = index, .value = value});
    else if (queue >= queue_count || !queues_[index].queue)
        remark({.mistake = Mistake::doorbell_without_queue, .queue = index, .value = value});
    else if (index == transmit_queue)
        notified_ = true;
}

bool Nic::step(BusMaster& bus) {
    return data_.after_completion(bus) || forward(bus) || data_.pending();
}

bool Nic::disabled() const {
    return (status_ & nic_status::driver_ok) == 0;
}

/// The buffers that it has not taken yet, of both queues.
bool Nic::uses(IovaRange range, BusMaster& bus) const {
    return is_running() && std::ranges::any_of(queues_, [&](const QueueRegisters& each) {
               return each.queue && each.queue->uses(range, bus);
           });
}

void Nic::reset() {
    data_.reset();
    stop();
}

void Nic::stop() {
    device_feature_select_ = driver_feature_select_ = 0;
    driver_features_ = {};
    config_vector_ = BusMaster::no_vector;
    status_ = causes_ = 0;
    selected_ = 0;
    queues_ = {};
    notified_ = false;
}

} // namespace moat::machine::soft
