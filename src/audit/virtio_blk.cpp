// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of virtio block devices over modern PCI, with one split queue and a request at a time.
// Source: Virtual I/O Device (VIRTIO) 1.1: 2.6 (split queues), 4.1 (PCI), 5.2 (block device).

#include "audit/device.hpp"
#include "audit/driver.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>

namespace moat::audit {
namespace virtio_blk {

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

constexpr unsigned write_place = 1; ///< only it and `read` before it have a position
constexpr std::array<std::uint32_t, 4> kinds = {0, 1, 8, 4}; ///< by operation
constexpr ByteCount longest(512 * 4096);
constexpr std::array<Operation, 4> operations_of_block = {
    {{.name = "read",
      .direction = Direction::from_device,
      .granule = ByteCount(sector),
      .longest = longest,
      .content = Content::loads},
     {.name = "write",
      .direction = Direction::to_device,
      .granule = ByteCount(sector),
      .longest = longest,
      .content = Content::stores},
     {.name = "identify",
      .direction = Direction::from_device,
      .granule = ByteCount(20),
      .longest = ByteCount(20),
      .fills = ByteCount(1)}, // a text that ends with 0 if it is shorter
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

class VirtioBlk final : public DeviceDriver {
  public:
    explicit VirtioBlk(const Seat& seat) : DeviceDriver("virtio-blk", operations_of_block, seat) {}

    ~VirtioBlk() override {
        if (common_)
            set_status(0);
    }

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    Result<void> find_windows();
    Result<std::unique_ptr<Window>> window_at(unsigned capability, std::uint64_t least);
    Result<void> start();
    void post(const Request& request);

    void set_status(std::uint8_t status) { common_->write8(common::status, status); }

    /// The device's index in the used ring.
    std::uint16_t used_index() {
        auto& word = reinterpret_cast<std::uint16_t*>(used_.bytes.data())[1];
        return std::atomic_ref<std::uint16_t>(word).load(std::memory_order_acquire);
    }

    std::unique_ptr<Window> common_;
    std::unique_ptr<Window> notify_;
    std::uint32_t notify_step_ = 0;
    Buffer descriptors_{};
    Buffer available_{};
    Buffer used_{};
    Buffer header_{};
    Buffer status_{};
    std::uint16_t posted_ = 0;
    bool running_ = false;
};

/// 4.1.4: vendor capabilities describe the windows.
Result<void> VirtioBlk::find_windows() {
    machine::Registers& config = function().config();
    unsigned common_at = 0;
    unsigned notify_at = 0;
    unsigned device_at = 0;
    const auto visit = [&](unsigned at, std::uint8_t id) {
        const unsigned kind = id == machine::pci::capability_vendor ? config.read8(at + 3) : 0;
        constexpr unsigned common_kind = 1;
        constexpr unsigned notify_kind = 2;
        constexpr unsigned device_kind = 4;
        common_at = kind == common_kind ? at : common_at;
        notify_at = kind == notify_kind ? at : notify_at;
        device_at = kind == device_kind ? at : device_at;
        return false;
    };
    each_capability(config, visit);
    if (common_at == 0 || notify_at == 0 || device_at == 0)
        return fail(ErrorCode::unsupported, "a virtio device without modern registers");
    MOAT_LET(notify_, window_at(notify_at, 2));
    notify_step_ = config.read32(notify_at + 16);
    MOAT_LET(const auto capacity, window_at(device_at, 8)); // 5.2.4
    set_medium(medium_of(capacity->read64(0), ByteCount(sector)));
    MOAT_LET(common_, window_at(common_at, common::bytes));
    return {};
}

/// Rejects a window outside its BAR, or of fewer than `least` bytes.
Result<std::unique_ptr<Window>> VirtioBlk::window_at(unsigned capability, std::uint64_t least) {
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

Result<void> VirtioBlk::prepare() {
    MOAT_TRY(find_windows());
    using enum Direction;
    constexpr Direction reads_index_back = bidirectional;
    MOAT_TRY(obtain({{descriptors_, {"descriptor table", to_device, ByteCount(16 * depth), 4}},
                     {available_, {"available ring", to_device, ByteCount(6 + 2 * depth), 1}},
                     {used_, {"used ring", reads_index_back, ByteCount(6 + 8 * depth), 2}},
                     {header_, {"request header", to_device, ByteCount(sizeof(Header)), 3}},
                     {status_, {"status", from_device, ByteCount(1), 0}}}));
    MOAT_TRY(enable_interrupts(1));
    return start();
}

/// 3.1.1: the initialization sequence.
Result<void> VirtioBlk::start() {
    running_ = false;
    set_status(0);
    auto is_reset = [&] { return common_->read8(common::status) == 0; };
    MOAT_TRY(require(is_reset, 1s, "the device does not reset"));
    function().set_bus_master(true);
    set_status(acknowledge | driver_found);
    common_->write32(common::device_feature_select, 1);
    const std::uint32_t offered = common_->read32(common::device_feature);
    common_->write32(common::driver_feature_select, 0);
    common_->write32(common::driver_feature, 0);
    common_->write32(common::driver_feature_select, 1);
    common_->write32(common::driver_feature, offered & (version_1 | access_platform));
    set_status(acknowledge | driver_found | features_ok);
    if ((common_->read8(common::status) & features_ok) == 0)
        return fail(ErrorCode::io, "the device rejects features that it offered",
                    {"offered", offered});
    common_->write16(common::config_vector, no_vector);
    common_->write16(common::queue_select, 0);
    if (common_->read16(common::queue_size) < depth)
        return fail(ErrorCode::io, "the device has no queue");
    common_->write16(common::queue_size, depth);
    common_->write16(common::queue_vector, vectors() != 0 ? 0 : no_vector);
    common_->write_halves(common::queue_descriptors, descriptors_.iova.value());
    common_->write_halves(common::queue_driver, available_.iova.value());
    common_->write_halves(common::queue_device, used_.iova.value());
    std::memset(available_.bytes.data(), 0, available_.bytes.size());
    std::memset(used_.bytes.data(), 0, used_.bytes.size());
    posted_ = 0;
    common_->write16(common::queue_enable, 1);
    set_status(acknowledge | driver_found | features_ok | driver_ok);
    running_ = true;
    return health();
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

Result<Answer> VirtioBlk::do_run(const Request& request) {
    if (!running_)
        MOAT_TRY(start());
    post(request);
    const std::uint64_t bell =
        std::uint64_t{common_->read16(common::queue_notify_offset)} * notify_step_;
    if (bell > notify_->size().value() - 2 || bell % 2 != 0)
        return fail(ErrorCode::io, "a queue whose doorbell lies outside of the device's",
                    {"offset", bell});
    notify_->write16(bell, 0);
    constexpr std::uint8_t needs_reset = 0x40;
    auto completed = [&] { return used_index() == posted_; };
    auto is_broken = [&] { return (common_->read8(common::status) & needs_reset) != 0; };
    MOAT_LET(const bool waited, wait_for_completion(0, completed, is_broken));
    if (!waited) {
        running_ = false;
        return Answer{Verdict::no_answer, common_->read8(common::status)};
    }
    const auto code = static_cast<std::uint64_t>(status_.bytes[0]);
    return Answer{code == 0 ? Verdict::success : Verdict::failure, code};
}

} // namespace virtio_blk

Result<std::unique_ptr<Driver>> start_virtio_blk(const Seat& seat) {
    auto driver = std::make_unique<virtio_blk::VirtioBlk>(seat);
    MOAT_TRY(driver->prepare());
    return driver;
}

} // namespace moat::audit
