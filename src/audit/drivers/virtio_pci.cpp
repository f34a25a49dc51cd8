// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/drivers/virtio_pci.hpp"

#include "moat/core/bits.hpp"

#include "platform/try.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>

namespace moat::audit::virtio {

namespace {

using namespace std::chrono_literals;

namespace common { // offsets in the common configuration

constexpr unsigned device_feature_select = 0;
constexpr unsigned device_feature = 4;
constexpr unsigned driver_feature_select = 8;
constexpr unsigned driver_feature = 12;
constexpr unsigned config_vector = 16;
constexpr unsigned status = 20;
constexpr unsigned queue_select = 22;
constexpr unsigned queue_size = 24;
constexpr unsigned queue_vector = 26;
constexpr unsigned queue_enable = 28;
constexpr unsigned queue_notify_offset = 30;
constexpr unsigned queue_descriptors = 32;
constexpr unsigned queue_driver = 40;
constexpr unsigned queue_device = 48;
constexpr unsigned bytes = 56;

} // namespace common

enum Status : std::uint8_t {
    acknowledge = 1,
    driver_found = 2,
    driver_ok = 4,
    features_ok = 8,
    needs_reset = 64
};

/// In the first word of features (6): tables of their own, and notifications by index.
constexpr std::uint32_t indirect_descriptors = 1U << 28;
constexpr std::uint32_t event_index = 1U << 29;
/// In the second: VIRTIO 1, and addresses that an IOMMU translates.
constexpr std::uint32_t version_1 = 1U << 0;
constexpr std::uint32_t access_platform = 1U << 1;

constexpr std::uint16_t no_vector = 0xffff;

/// In memory layout.
struct Descriptor {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint16_t flags = 0;
    std::uint16_t next = 0;
};

static_assert(sizeof(Descriptor) == 16);
constexpr std::uint16_t goes_on = 1;
constexpr std::uint16_t device_writes = 2;
constexpr std::uint16_t in_a_table = 4;

std::atomic_ref<std::uint16_t> half_word(const Buffer& buffer, std::size_t index) {
    return std::atomic_ref(reinterpret_cast<std::uint16_t*>(buffer.bytes.data())[index]);
}

/// Indices of 16-bit words: of the index in both rings, and of what follows their entries.
constexpr std::size_t index_at = 1;
constexpr std::size_t used_event_at = 2 + Queue::depth;
constexpr std::size_t available_event_at = 2 + std::size_t{4} * Queue::depth;

} // namespace

bool Queue::is_idle() {
    return half_word(used_, index_at).load(std::memory_order_acquire) == posted_;
}

void Queue::restart() {
    std::ranges::fill(available_.bytes, std::byte{0});
    std::ranges::fill(used_.bytes, std::byte{0});
    posted_ = 0;
}

/// The chain begins at descriptor 0; the index publishes it.
void Queue::post(std::span<const Part> parts) {
    std::array<Descriptor, most_parts> chain;
    std::uint16_t count = 0;
    for (const Part& part : parts) {
        const bool is_last = count + 1U == parts.size();
        chain.at(count) = {part.iova.value(), static_cast<std::uint32_t>(part.bytes),
                           static_cast<std::uint16_t>((is_last ? 0 : goes_on) |
                                                      (part.device_writes ? device_writes : 0)),
                           static_cast<std::uint16_t>(is_last ? 0 : count + 1)};
        ++count;
    }
    const std::uint32_t bytes = count * static_cast<std::uint32_t>(sizeof(Descriptor));
    std::memcpy((by_table_ ? table_ : descriptors_).bytes.data(), chain.data(), bytes);
    if (by_table_) {
        const Descriptor whole{table_.iova.value(), bytes, in_a_table, 0};
        std::memcpy(descriptors_.bytes.data(), &whole, sizeof whole);
    }
    half_word(available_, 2 + posted_ % depth).store(0, std::memory_order_relaxed);
    // The device interrupts when it uses the entry of this number (2.6.7).
    half_word(available_, used_event_at).store(by_index_ ? posted_ : 0, std::memory_order_relaxed);
    ++posted_;
    half_word(available_, index_at).store(posted_, std::memory_order_release);
}

/// The device wants to know of the entry of the number that it wrote.
bool Queue::wants_bell() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const auto wanted = half_word(used_, available_event_at).load(std::memory_order_acquire);
    return !by_index_ || wanted == static_cast<std::uint16_t>(posted_ - 1);
}

VirtioDriver::~VirtioDriver() {
    if (common_)
        set_status(0);
}

void VirtioDriver::set_status(std::uint8_t status) {
    common_->write8(common::status, status);
}

/// 4.1.4: vendor capabilities describe the windows.
Result<void> VirtioDriver::find_registers(std::uint64_t least) {
    machine::Registers& config = function().config();
    std::array<unsigned, 6> found{}; // by their kind: 1 common, 2 notify, 4 the device's own
    const auto visit = [&](unsigned at, std::uint8_t id) {
        const unsigned kind = id == machine::pci::capability_vendor ? config.read8(at + 3) : 0;
        if (kind < found.size())
            found.at(kind) = at;
        return false;
    };
    each_capability(config, visit);
    if (found[1] == 0 || found[2] == 0 || found[4] == 0)
        return fail(ErrorCode::unsupported, "a virtio device without modern registers");
    MOAT_LET(notify_, window_at(found[2], 2));
    notify_step_ = config.read32(found[2] + 16);
    MOAT_LET(own_, window_at(found[4], least));
    MOAT_LET(common_, window_at(found[1], common::bytes));
    return {};
}

/// Rejects a window outside its BAR, or of fewer than `least` bytes.
Result<std::unique_ptr<Window>> VirtioDriver::window_at(unsigned capability, std::uint64_t least) {
    machine::Registers& config = function().config();
    MOAT_LET(machine::Registers* const bar, function().bar(config.read8(capability + 4)));
    const std::uint64_t offset = config.read32(capability + 8);
    const std::uint64_t size = config.read32(capability + 12);
    const std::uint64_t all = bar->size().value();
    if (offset > all || size > all - offset || size < least || (offset & 7) != 0)
        return fail(ErrorCode::io, "a virtio device whose registers lie outside of its BAR",
                    {"offset", offset}, {"size", size}, {"bar_bytes", all}, {"least", least});
    return std::make_unique<Window>(*bar, offset, size);
}

Result<void> VirtioDriver::prepare(Queue& queue) {
    using enum Direction;
    constexpr unsigned depth = Queue::depth;
    constexpr Direction reads_index_back = bidirectional;
    MOAT_TRY(
        obtain({{queue.descriptors_, {"descriptor table", to_device, ByteCount(16 * depth), 4}},
                {queue.available_, {"available ring", to_device, ByteCount(6 + 2 * depth), 1}},
                {queue.used_, {"used ring", reads_index_back, ByteCount(6 + 8 * depth), 2}}}));
    const ByteCount table(sizeof(Descriptor) * Queue::most_parts);
    if (style_ == Style::indirect)
        MOAT_TRY(obtain({{queue.table_, {"indirect table", to_device, table, 4}}}));
    return {};
}

Result<void> VirtioDriver::negotiate() {
    common_->write32(common::device_feature_select, 0);
    const std::uint32_t first = common_->read32(common::device_feature);
    common_->write32(common::device_feature_select, 1);
    const std::uint32_t second = common_->read32(common::device_feature);
    accepted_ = style_ == Style::indirect ? first & (indirect_descriptors | event_index) : 0;
    common_->write32(common::driver_feature_select, 0);
    common_->write32(common::driver_feature, accepted_);
    common_->write32(common::driver_feature_select, 1);
    common_->write32(common::driver_feature, second & (version_1 | access_platform));
    set_status(acknowledge | driver_found | features_ok);
    if ((common_->read8(common::status) & features_ok) == 0)
        return fail(ErrorCode::io, "the device rejects features that it offered", {"first", first},
                    {"second", second});
    return {};
}

Result<void> VirtioDriver::enable(Queue& queue) {
    common_->write16(common::queue_select, queue.number_);
    if (common_->read16(common::queue_size) < Queue::depth)
        return fail(ErrorCode::io, "the device has no queue", {"queue", queue.number_});
    queue.restart();
    queue.by_table_ = (accepted_ & indirect_descriptors) != 0;
    queue.by_index_ = (accepted_ & event_index) != 0;
    common_->write16(common::queue_size, Queue::depth);
    common_->write16(common::queue_vector, vectors() != 0 ? 0 : no_vector);
    common_->write_halves(common::queue_descriptors, queue.descriptors_.iova.value());
    common_->write_halves(common::queue_driver, queue.available_.iova.value());
    common_->write_halves(common::queue_device, queue.used_.iova.value());
    queue.bell_ = std::uint64_t{common_->read16(common::queue_notify_offset)} * notify_step_;
    if (queue.bell_ > notify_->size().value() - 2 || queue.bell_ % 2 != 0)
        return fail(ErrorCode::io, "a queue whose doorbell lies outside of the device's",
                    {"offset", queue.bell_});
    common_->write16(common::queue_enable, 1);
    return {};
}

/// 3.1.1: the initialization sequence.
Result<void> VirtioDriver::start_device(std::span<Queue* const> queues) {
    set_status(0);
    auto is_reset = [&] { return common_->read8(common::status) == 0; };
    MOAT_TRY(require(is_reset, 1s, "the device does not reset"));
    function().set_bus_master(true);
    set_status(acknowledge | driver_found);
    MOAT_TRY(negotiate());
    common_->write16(common::config_vector, no_vector);
    for (Queue* const each : queues)
        MOAT_TRY(enable(*each));
    set_status(acknowledge | driver_found | features_ok | driver_ok);
    return health();
}

void VirtioDriver::post(Queue& queue, std::span<const Part> parts) {
    queue.post(parts);
    if (queue.wants_bell())
        notify_->write16(queue.bell_, queue.number_);
}

Result<bool> VirtioDriver::wait_for(Queue& queue) {
    auto completed = [&] { return queue.is_idle(); };
    auto is_broken = [&] { return (common_->read8(common::status) & needs_reset) != 0; };
    return wait_for_completion(0, completed, is_broken);
}

Answer VirtioDriver::no_answer() {
    return {Verdict::no_answer, common_->read8(common::status)};
}

} // namespace moat::audit::virtio
