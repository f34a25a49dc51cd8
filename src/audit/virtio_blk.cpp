// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio block devices over modern PCI, with one split queue and a request at a time.
// Source: Virtual I/O Device (VIRTIO) 1.1: 2.6 (split queues), 4.1 (PCI), 5.2 (block device).
#include "moat/core/bits.hpp"

#include "audit/device.hpp"
#include "audit/drivers.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>

namespace moat::audit {
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

enum Status : std::uint8_t { acknowledge = 1, driver_found = 2, driver_ok = 4, features_ok = 8 };

/// In the second word of features: VIRTIO 1, and addresses that an IOMMU translates.
constexpr std::uint32_t version_1 = 1U << 0;
constexpr std::uint32_t access_platform = 1U << 1;

constexpr std::uint16_t no_vector = 0xffff;
constexpr unsigned depth = 8;
constexpr std::uint64_t sector = 512;

/// In memory layout.
struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};

static_assert(sizeof(Descriptor) == 16);
constexpr std::uint16_t goes_on = 1;
constexpr std::uint16_t device_writes = 2;

struct Header {
    std::uint32_t kind;
    std::uint32_t reserved;
    std::uint64_t first_sector;
};

static_assert(sizeof(Header) == 16);

enum Place : std::uint8_t { read_place, write_place, identify_place, flush_place };

constexpr std::array<std::uint32_t, 4> kinds = {0, 1, 8, 4};
constexpr ByteCount longest(512 * 4096);
constexpr std::array<Operation, 4> operations_of_block = {
    {{"read", Direction::from_device, 0, ByteCount(sector), longest},
     {"write", Direction::to_device, 0, ByteCount(sector), longest},
     {.name = "identify",
      .direction = Direction::from_device,
      .granule = ByteCount(20),
      .longest = ByteCount(20),
      .fills = ByteCount(1)}, // a text that ends with 0 if it is shorter
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

/// A part of a BAR.
struct Window {
    machine::Registers* registers = nullptr;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
};

class VirtioBlk final : public Driver {
  public:
    VirtioBlk(machine::Machine& machine, machine::Function& function)
        : device_(machine, function) {}

    ~VirtioBlk() override {
        if (common_.registers != nullptr)
            set_status(0);
    }

    [[nodiscard]] std::string_view name() const override { return "virtio-blk"; }

    [[nodiscard]] std::span<const Operation> operations() const override {
        return operations_of_block;
    }

    [[nodiscard]] Result<Answer> run(const Request& request) override;

    Result<void> prepare(BufferSource& buffers);

  private:
    Result<void> find_windows();
    Result<Window> window_at(unsigned capability);
    Result<void> start();
    void post(const Request& request);

    void set_status(std::uint8_t status) { write8(common::status, status); }

    std::uint32_t read32(unsigned at) { return common_.registers->read32(common_.offset + at); }

    std::uint16_t read16(unsigned at) { return common_.registers->read16(common_.offset + at); }

    std::uint8_t read8(unsigned at) { return common_.registers->read8(common_.offset + at); }

    void write8(unsigned at, std::uint8_t value) {
        common_.registers->write8(common_.offset + at, value);
    }

    void write16(unsigned at, std::uint16_t value) {
        common_.registers->write16(common_.offset + at, value);
    }

    void write32(unsigned at, std::uint32_t value) {
        common_.registers->write32(common_.offset + at, value);
    }

    void write64(unsigned at, Iova value) {
        write32(at, static_cast<std::uint32_t>(value.value()));
        write32(at + 4, static_cast<std::uint32_t>(value.value() >> 32));
    }

    /// The device's index in the used ring.
    std::uint16_t used_index() {
        auto& word = reinterpret_cast<std::uint16_t*>(used_.bytes.data())[1];
        return std::atomic_ref<std::uint16_t>(word).load(std::memory_order_acquire);
    }

    Device device_;
    Window common_;
    Window notify_;
    std::uint32_t notify_step_ = 0;
    Buffer descriptors_{};
    Buffer available_{};
    Buffer used_{};
    Buffer header_{};
    Buffer status_{};
    std::uint16_t posted_ = 0;
    bool running_ = false;
};

/// 4.1.4: vendor capabilities describe the windows. Rejects a window outside its BAR.
Result<void> VirtioBlk::find_windows() {
    machine::Registers& config = device_.function().config();
    unsigned at = config.read8(machine::pci::capabilities) & 0xfcU;
    for (unsigned seen = 0; at >= 0x40 && seen != 48; ++seen) {
        const std::uint32_t head = config.read32(at);
        const unsigned kind = head >> 24;
        constexpr unsigned common_kind = 1;
        constexpr unsigned notify_kind = 2;
        if ((head & 0xff) == machine::pci::capability_vendor &&
            (kind == common_kind || kind == notify_kind)) {
            const auto window = window_at(at);
            if (!window)
                return std::unexpected(window.error());
            (kind == common_kind ? common_ : notify_) = *window;
            if (kind == notify_kind)
                notify_step_ = config.read32(at + 16);
        }
        at = head >> 8 & 0xfc;
    }
    if (common_.size < common::bytes || notify_.size < 2) {
        common_.registers = nullptr;
        return fail(ErrorCode::unsupported, "a virtio device without modern registers");
    }
    return {};
}

Result<Window> VirtioBlk::window_at(unsigned capability) {
    machine::Registers& config = device_.function().config();
    const auto bar = device_.function().bar(config.read8(capability + 4));
    if (!bar)
        return std::unexpected(bar.error());
    const Window window{.registers = *bar,
                        .offset = config.read32(capability + 8),
                        .size = config.read32(capability + 12)};
    const std::uint64_t all = window.registers->size().value();
    if (window.offset > all || window.size > all - window.offset || (window.offset & 7) != 0)
        return fail(ErrorCode::io, "a virtio device whose registers lie outside of its BAR",
                    {"offset", window.offset}, {"size", window.size});
    return window;
}

Result<void> VirtioBlk::prepare(BufferSource& buffers) {
    if (const auto found = find_windows(); !found)
        return found;
    using enum Direction;
    constexpr Direction reads_index_back = bidirectional;
    if (const auto obtained = Device::obtain(
            buffers, {{descriptors_, {"descriptor table", to_device, ByteCount(16 * depth), 4}},
                      {available_, {"available ring", to_device, ByteCount(6 + 2 * depth), 1}},
                      {used_, {"used ring", reads_index_back, ByteCount(6 + 8 * depth), 2}},
                      {header_, {"request header", to_device, ByteCount(sizeof(Header)), 3}},
                      {status_, {"status", from_device, ByteCount(1), 0}}});
        !obtained)
        return obtained;
    if (const auto enabled = device_.enable_interrupts(1); !enabled)
        return enabled;
    return start();
}

/// 3.1.1: the initialization sequence.
Result<void> VirtioBlk::start() {
    running_ = false;
    set_status(0);
    auto is_reset = [&] { return read8(common::status) == 0; };
    if (const auto done = device_.require(is_reset, 1s, "the device does not reset"); !done)
        return done;
    device_.function().set_bus_master(true);
    set_status(acknowledge | driver_found);
    write32(common::device_feature_select, 1);
    const std::uint32_t offered = read32(common::device_feature);
    write32(common::driver_feature_select, 0);
    write32(common::driver_feature, 0);
    write32(common::driver_feature_select, 1);
    write32(common::driver_feature, offered & (version_1 | access_platform));
    set_status(acknowledge | driver_found | features_ok);
    if ((read8(common::status) & features_ok) == 0)
        return fail(ErrorCode::io, "the device rejects features that it offered",
                    {"offered", offered});
    write16(common::config_vector, no_vector);
    write16(common::queue_select, 0);
    if (read16(common::queue_size) < depth)
        return fail(ErrorCode::io, "the device has no queue");
    write16(common::queue_size, depth);
    write16(common::queue_vector, device_.vectors() != 0 ? 0 : no_vector);
    write64(common::queue_descriptors, descriptors_.iova);
    write64(common::queue_driver, available_.iova);
    write64(common::queue_device, used_.iova);
    std::memset(available_.bytes.data(), 0, available_.bytes.size());
    std::memset(used_.bytes.data(), 0, used_.bytes.size());
    posted_ = 0;
    write16(common::queue_enable, 1);
    set_status(acknowledge | driver_found | features_ok | driver_ok);
    running_ = true;
    return device_.health();
}

/// 5.2.6: a header, the data, a byte of status.
void VirtioBlk::post(const Request& request) {
    const bool reads =
        operations_of_block.at(request.operation).direction == Direction::from_device;
    const Header header{.kind = kinds.at(request.operation),
                        .reserved = 0,
                        .first_sector = request.operation <= write_place ? request.position : 0};
    std::memcpy(header_.bytes.data(), &header, sizeof header);
    status_.bytes[0] = std::byte{0xff};
    std::array<Descriptor, 3> chain = {
        {{header_.iova.value(), sizeof header, goes_on, 1},
         {request.data.value(), static_cast<std::uint32_t>(request.length.value()),
          static_cast<std::uint16_t>(goes_on | (reads ? device_writes : 0)), 2},
         {status_.iova.value(), 1, device_writes, 0}}};
    if (request.length == ByteCount(0))
        chain[0].next = 2;
    std::memcpy(descriptors_.bytes.data(), chain.data(), sizeof chain);
    // The chain begins at descriptor 0; the index publishes it.
    auto* const ring = reinterpret_cast<std::uint16_t*>(available_.bytes.data());
    ring[2 + posted_ % depth] = 0;
    ++posted_;
    std::atomic_ref<std::uint16_t>(ring[1]).store(posted_, std::memory_order_release);
}

Result<Answer> VirtioBlk::run(const Request& request) {
    const Operation& operation = operations_of_block.at(request.operation);
    const std::uint64_t bytes = request.length.value();
    if (request.length > operation.longest || bytes % operation.granule.value() != 0 ||
        (bytes == 0) != (request.operation == flush_place))
        return fail(ErrorCode::out_of_range, "the operation has no such length", {"length", bytes});
    if (!running_)
        if (const auto started = start(); !started)
            return std::unexpected(started.error());
    post(request);
    const std::uint64_t bell = std::uint64_t{read16(common::queue_notify_offset)} * notify_step_;
    if (bell > notify_.size - 2 || bell % 2 != 0)
        return fail(ErrorCode::io, "a queue whose doorbell lies outside of the device's",
                    {"offset", bell});
    notify_.registers->write16(notify_.offset + bell, 0);
    constexpr std::uint8_t needs_reset = 0x40;
    auto completed = [&] { return used_index() == posted_; };
    auto is_broken = [&] { return (read8(common::status) & needs_reset) != 0; };
    const auto waited = device_.wait_for_completion(0, completed, is_broken);
    if (!waited)
        return std::unexpected(waited.error());
    if (!*waited) {
        running_ = false;
        return Answer{Verdict::no_answer, read8(common::status)};
    }
    const auto code = static_cast<std::uint64_t>(status_.bytes[0]);
    return Answer{code == 0 ? Verdict::success : Verdict::failure, code};
}

} // namespace

Result<std::unique_ptr<Driver>>
probe_virtio_blk(machine::Machine& machine, machine::Function& function, BufferSource& buffers) {
    constexpr std::uint16_t modern = 0x1042;
    constexpr std::uint16_t transitional = 0x1001;
    const machine::FunctionInfo& info = function.info();
    if (info.vendor != 0x1af4 || (info.device != modern && info.device != transitional))
        return fail(ErrorCode::unsupported, "not a virtio block device");
    return prepared(std::make_unique<VirtioBlk>(machine, function), buffers);
}

} // namespace moat::audit
