// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/drivers/virtio_pci.hpp"

#include "moat/core/bits.hpp"

#include <array>
#include <chrono>

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

namespace feature { // 6

constexpr std::uint64_t indirect_descriptors = bit(28);
constexpr std::uint64_t event_index = bit(29);
constexpr std::uint64_t version_1 = bit(32);
constexpr std::uint64_t access_platform = bit(33); ///< an IOMMU translates addresses
constexpr std::uint64_t ring_packed = bit(34);

} // namespace feature

constexpr std::uint16_t no_vector = 0xffff;

} // namespace

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
    choose_features();
    return {};
}

/// Packed queues, if they are offered.
void VirtioDriver::choose_features() {
    std::uint64_t offered = 0;
    for (const unsigned word : {0U, 1U}) {
        common_->write32(common::device_feature_select, word);
        offered |= std::uint64_t{common_->read32(common::device_feature)} << 32 * word;
    }
    using namespace feature;
    accepted_ = offered & (version_1 | access_platform | ring_packed |
                           (style_ == Style::indirect ? indirect_descriptors | event_index : 0));
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

Result<Queue*> VirtioDriver::create_queue(std::uint16_t number) {
    const auto agreed = [&](std::uint64_t wanted) { return (accepted_ & wanted) != 0; };
    const Layout& layout = agreed(feature::ring_packed) ? packed_layout : split_layout;
    const Terms terms{.tables = agreed(feature::indirect_descriptors),
                      .events = agreed(feature::event_index)};
    QueueMemory memory;
    MOAT_TRY(obtain({{memory.descriptors, layout.needs[0]},
                     {memory.driver, layout.needs[1]},
                     {memory.device, layout.needs[2]}}));
    const ByteCount table(16 * Queue::most_parts);
    if (terms.tables)
        MOAT_TRY(obtain({{memory.table, {"indirect table", Direction::to_device, table, 4}}}));
    Queue& made = *queues_.emplace_back(layout.create(memory, terms));
    made.number_ = number;
    made.vector_ = static_cast<unsigned>(queues_.size() - 1);
    return &made;
}

Result<void> VirtioDriver::negotiate() {
    for (const unsigned word : {0U, 1U}) {
        common_->write32(common::driver_feature_select, word);
        common_->write32(common::driver_feature,
                         static_cast<std::uint32_t>(accepted_ >> 32 * word));
    }
    set_status(acknowledge | driver_found | features_ok);
    if ((common_->read8(common::status) & features_ok) == 0)
        return fail(ErrorCode::io, "the device rejects features that it offered",
                    {"features", accepted_});
    return {};
}

Result<void> VirtioDriver::enable(Queue& queue) {
    common_->write16(common::queue_select, queue.number_);
    if (common_->read16(common::queue_size) < Queue::depth)
        return fail(ErrorCode::io, "the device has no queue", {"queue", queue.number_});
    queue.restart();
    common_->write16(common::queue_size, Queue::depth);
    common_->write16(common::queue_vector,
                     vectors() != 0 ? static_cast<std::uint16_t>(queue.vector_) : no_vector);
    const QueueMemory& memory = queue.memory();
    common_->write_halves(common::queue_descriptors, memory.descriptors.iova.value());
    common_->write_halves(common::queue_driver, memory.driver.iova.value());
    common_->write_halves(common::queue_device, memory.device.iova.value());
    queue.bell_ = std::uint64_t{common_->read16(common::queue_notify_offset)} * notify_step_;
    if (queue.bell_ > notify_->size().value() - 2 || queue.bell_ % 2 != 0)
        return fail(ErrorCode::io, "a queue whose doorbell lies outside of the device's",
                    {"offset", queue.bell_});
    common_->write16(common::queue_enable, 1);
    return {};
}

/// 3.1.1: the initialization sequence.
Result<void> VirtioDriver::start_device() {
    if (vectors() != 0 && vectors() < queues_.size())
        return fail(ErrorCode::unsupported, "the device has fewer interrupt vectors than queues",
                    {"vectors", vectors()}, {"queues", queues_.size()});
    set_status(0);
    auto is_reset = [&] { return common_->read8(common::status) == 0; };
    MOAT_TRY(require(is_reset, 1s, "the device does not reset"));
    function().set_bus_master(true);
    set_status(acknowledge | driver_found);
    MOAT_TRY(negotiate());
    common_->write16(common::config_vector, no_vector);
    for (const auto& each : queues_)
        MOAT_TRY(enable(*each));
    set_status(acknowledge | driver_found | features_ok | driver_ok);
    return health();
}

void VirtioDriver::post(Queue& queue, std::span<const Part> parts) {
    queue.post(parts);
    if (queue.wants_bell())
        notify_->write16(queue.bell_, queue.number_);
}

Result<bool> VirtioDriver::wait_for(Queue& queue, std::chrono::nanoseconds longest) {
    auto completed = [&] { return queue.is_idle(); };
    auto is_broken = [&] { return (common_->read8(common::status) & needs_reset) != 0; };
    return wait_for_completion(queue.vector_, completed, is_broken, longest);
}

Answer VirtioDriver::no_answer() {
    return {Verdict::no_answer, common_->read8(common::status)};
}

} // namespace moat::audit::virtio
