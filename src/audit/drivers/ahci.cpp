// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of AHCI controllers: the first port with a disk, one command at a time in slot 0.
// Source: Serial ATA AHCI 1.3.1: 3 (registers), 4 (memory), 10.1 (start); ATA/ATAPI-8 (commands).
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <array>
#include <chrono>
#include <cstring>

namespace moat::audit {
namespace ahci {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned global_control = 0x04;
constexpr unsigned ports = 0x0c;
constexpr unsigned first_port = 0x100;
constexpr unsigned port_bytes = 0x80;
// Of a port:
constexpr unsigned list = 0x00;
constexpr unsigned received = 0x08;
constexpr unsigned interrupts = 0x10;
constexpr unsigned command = 0x18;
constexpr unsigned task_file = 0x20;
constexpr unsigned link = 0x28;
constexpr unsigned errors = 0x30;
constexpr unsigned issued = 0x38;

} // namespace reg

constexpr std::uint32_t ahci_enable = 1U << 31;
constexpr std::uint32_t start_bit = 1U << 0;
constexpr std::uint32_t receive_bit = 1U << 4;
constexpr std::uint32_t receive_running = 1U << 14;
constexpr std::uint32_t list_running = 1U << 15;
constexpr std::uint32_t busy_or_error = 0x89; ///< of the task file: BSY, DRQ, ERR
constexpr std::uint32_t task_error = 1U << 30;

constexpr std::uint64_t sector = 512;
constexpr ByteCount longest(std::uint64_t{4} << 20); // of one region

/// By operation.
constexpr unsigned identify_place = 2;
constexpr std::array<std::uint8_t, 4> commands = {0x25, 0x35, 0xec, 0xea};
constexpr std::array<Operation, 4> operations_of_ahci = {
    {on_medium("read", Content::loads, ByteCount(sector), longest, 1),
     on_medium("write", Content::stores, ByteCount(sector), longest, 1),
     {"identify", Direction::from_device, 1, ByteCount(sector), ByteCount(sector)},
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

/// The first 32 bytes of the command list are slot 0.
struct Slot {
    std::uint16_t flags;
    std::uint16_t regions;
    std::uint32_t transferred;
    std::uint64_t table;
    std::array<std::uint32_t, 4> reserved;
};

static_assert(sizeof(Slot) == 32);

struct Region {
    std::uint64_t address;
    std::uint32_t reserved;
    std::uint32_t last_byte;
};

static_assert(sizeof(Region) == 16);
constexpr std::size_t regions_in_table = 0x80;

class Ahci final : public DeviceDriver {
  public:
    Ahci(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("ahci", operations_of_ahci, seat), registers_(registers) {}

    ~Ahci() override {
        if (port_)
            (void)stop();
    }

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    Result<void> start();
    Result<void> stop();
    Result<void> learn();
    void post(const Request& request);

    machine::Registers& registers_;
    Buffer list_{};
    Buffer received_{};
    Buffer table_{};
    Buffer scratch_{};
    std::unique_ptr<Window> port_; ///< its registers
    bool running_ = false;
};

Result<void> Ahci::prepare() {
    registers_.write32(reg::global_control, ahci_enable);
    const std::uint32_t implemented = registers_.read32(reg::ports);
    for (unsigned index = 0; index != 32 && !port_; ++index) {
        const unsigned at = reg::first_port + index * reg::port_bytes;
        constexpr std::uint32_t present = 3;
        if ((implemented >> index & 1) != 0 && at + reg::port_bytes <= registers_.size().value() &&
            (registers_.read32(at + reg::link) & 0xf) == present)
            port_ = std::make_unique<Window>(registers_, at, reg::port_bytes);
    }
    if (!port_)
        return fail(ErrorCode::unsupported, "an AHCI controller without a disk",
                    {"ports", implemented});
    using enum Direction;
    const ByteCount table(regions_in_table + sizeof(Region));
    MOAT_TRY(obtain({{list_, {"command list", bidirectional, ByteCount(1024), 10}},
                     {received_, {"received FIS", from_device, ByteCount(256), 8}},
                     {table_, {"command table", to_device, table, 7}},
                     {scratch_, {"identify", from_device, ByteCount(sector), 1, Use::at_start}}}));
    MOAT_TRY(start());
    return learn();
}

/// Reads the number of sectors that 48-bit commands address (ATA8-ACS, 7.16.7.53).
Result<void> Ahci::learn() {
    constexpr std::size_t sectors_at = 200;
    MOAT_LET(
        const Answer answer,
        do_run({.operation = identify_place, .data = scratch_.iova, .length = ByteCount(sector)}));
    if (answer.verdict != Verdict::success)
        return fail(ErrorCode::io, "the disk does not identify itself", {"status", answer.code});
    std::uint64_t sectors = 0;
    std::memcpy(&sectors, scratch_.bytes.data() + sectors_at, sizeof sectors);
    set_medium(medium_of(sectors, ByteCount(sector)));
    return {};
}

Result<void> Ahci::stop() {
    running_ = false;
    const std::uint32_t command = port_->read32(reg::command);
    port_->write32(reg::command, command & ~(start_bit | receive_bit));
    auto stopped = [&] {
        return (port_->read32(reg::command) & (list_running | receive_running)) == 0;
    };
    return require(stopped, 1s, "the port does not stop");
}

Result<void> Ahci::start() {
    MOAT_TRY(stop());
    function().set_bus_master(true);
    std::memset(list_.bytes.data(), 0, list_.bytes.size());
    port_->write_halves(reg::list, list_.iova.value());
    port_->write_halves(reg::received, received_.iova.value());
    port_->write32(reg::errors, ~0U);
    port_->write32(reg::interrupts, ~0U);
    port_->write32(reg::command, port_->read32(reg::command) | receive_bit);
    port_->write32(reg::command, port_->read32(reg::command) | start_bit);
    auto idle = [&] { return (port_->read32(reg::task_file) & 0x88) == 0; };
    MOAT_LET(const bool ready, wait_until(idle, 1s));
    if (!ready)
        return fail(ErrorCode::io, "the disk stays busy",
                    {"task_file", port_->read32(reg::task_file)});
    running_ = true;
    return {};
}

/// 4.2: slot 0, its table with a register FIS (host to device), and one region.
void Ahci::post(const Request& request) {
    const bool writes = operations_of_ahci.at(request.operation).direction == Direction::to_device;
    const bool has_data = request.length != ByteCount(0);
    constexpr std::uint16_t fis_words = 5;
    constexpr std::uint16_t to_disk = 1U << 6;
    const Slot slot{.flags = static_cast<std::uint16_t>(fis_words | (writes ? to_disk : 0)),
                    .regions = static_cast<std::uint16_t>(has_data ? 1 : 0),
                    .transferred = 0,
                    .table = table_.iova.value(),
                    .reserved = {}};
    const std::uint64_t sectors = request.length.value() / sector;
    const auto byte = [](std::uint64_t value, unsigned index) {
        return static_cast<std::uint8_t>(value >> 8 * index);
    };
    const std::uint64_t at = request.position;
    const std::array<std::uint8_t, 20> fis = {0x27,
                                              0x80,
                                              commands.at(request.operation),
                                              0,
                                              byte(at, 0),
                                              byte(at, 1),
                                              byte(at, 2),
                                              0x40, // a sector address
                                              byte(at, 3),
                                              byte(at, 4),
                                              byte(at, 5),
                                              0,
                                              byte(sectors, 0),
                                              byte(sectors, 1)};
    const Region region{.address = request.data.value(),
                        .reserved = 0,
                        .last_byte = static_cast<std::uint32_t>(request.length.value() - 1)};
    std::memcpy(table_.bytes.data(), fis.data(), fis.size());
    if (has_data)
        std::memcpy(table_.bytes.data() + regions_in_table, &region, sizeof region);
    std::memcpy(list_.bytes.data(), &slot, sizeof slot);
}

Result<Answer> Ahci::do_run(const Request& request) {
    if (!running_)
        MOAT_TRY(start());
    post(request);
    port_->write32(reg::interrupts, ~0U);
    port_->write32(reg::issued, 1);
    auto completed = [&] {
        return (port_->read32(reg::issued) & 1) == 0 ||
               (port_->read32(reg::interrupts) & task_error) != 0;
    };
    MOAT_LET(const bool waited, wait_until(completed, 5s));
    const std::uint32_t task_file = port_->read32(reg::task_file);
    if (!waited) {
        running_ = false;
        return Answer{Verdict::no_answer, task_file};
    }
    const bool failed = (task_file & busy_or_error) != 0;
    running_ = !failed; // after an error the port must be restarted (6.2.2.1)
    return Answer{failed ? Verdict::failure : Verdict::success, task_file & 0xffff};
}

} // namespace ahci

Result<std::unique_ptr<Driver>> start_ahci(const Seat& seat) {
    return started<ahci::Ahci>(seat, 5);
}

} // namespace moat::audit
