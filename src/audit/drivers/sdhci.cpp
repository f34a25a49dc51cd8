// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of SD host controllers: the card in the first slot, by ADMA2.
// Source: SD Host Controller Simplified Specification 3.00: 1.13 (ADMA2), 2.2 (registers), 3.6
// (card initialization), 3.10 (error recovery); Physical Layer Simplified Specification 3.01: 4.7
// to 5.3.
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

namespace moat::audit {
namespace sdhci {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned blocks = 0x04; ///< their size; in the upper half, how many
constexpr unsigned argument = 0x08;
constexpr unsigned command = 0x0c; ///< the transfer's mode; in the upper half, the command
constexpr unsigned response = 0x10;
constexpr unsigned present = 0x24;
constexpr unsigned host_control = 0x28;
constexpr unsigned power = 0x29;
constexpr unsigned clock = 0x2c;
constexpr unsigned timeout = 0x2e;
constexpr unsigned reset = 0x2f;
constexpr unsigned status = 0x30; ///< in the upper half, errors
constexpr unsigned status_enable = 0x34;
constexpr unsigned capabilities = 0x40;
constexpr unsigned table = 0x58;

} // namespace reg

/// 2.2.9, 2.2.17
constexpr std::uint32_t card_inserted = 1U << 16;
constexpr std::uint32_t command_complete = 1U << 0;
constexpr std::uint32_t transfer_complete = 1U << 1;
constexpr std::uint32_t any_error = 1U << 15;
/// 2.2.5
constexpr std::uint32_t by_dma = 1U << 0;
constexpr std::uint32_t count_blocks = 1U << 1;
constexpr std::uint32_t stop_after_it = 1U << 2; ///< by an automatic CMD12
constexpr std::uint32_t to_host = 1U << 4;
constexpr std::uint32_t multiple = 1U << 5;
/// 2.2.16
constexpr std::uint8_t reset_all = 1U << 0;
constexpr std::uint8_t reset_command_line = 1U << 1;
constexpr std::uint8_t reset_data_lines = 1U << 2;
/// 2.2.25
constexpr std::uint32_t has_adma2 = 1U << 19;
constexpr std::uint32_t has_64_bits = 1U << 28;

/// 2.2.6: a command's index, and in the lower byte its response, checks, and data.
constexpr std::uint16_t no_response = 0x00;
constexpr std::uint16_t r2 = 0x09;
constexpr std::uint16_t r3 = 0x02;
constexpr std::uint16_t r1 = 0x1a;  ///< also R6 and R7
constexpr std::uint16_t r1b = 0x1b; ///< R1, with the card busy after it
constexpr std::uint16_t with_data = 0x20;
constexpr std::uint16_t aborts = 0xc0;

enum class Command : std::uint16_t {
    go_idle = 0 << 8 | no_response,
    all_send_id = 2 << 8 | r2,
    send_address = 3 << 8 | r1,
    select = 7 << 8 | r1b,
    send_interface = 8 << 8 | r1,
    send_specific_data = 9 << 8 | r2,
    stop = 12 << 8 | r1b | aborts,
    send_status = 13 << 8 | r1,
    set_block_length = 16 << 8 | r1,
    read_one = 17 << 8 | r1 | with_data,
    read_many = 18 << 8 | r1 | with_data,
    write_one = 24 << 8 | r1 | with_data,
    write_many = 25 << 8 | r1 | with_data,
    application = 55 << 8 | r1, ///< the next command is an application's
    application_status = 13 << 8 | r1 | with_data,
    application_power_up = 41 << 8 | r3,
};

/// Physical Layer, 4.10.1: the errors in a card's status.
constexpr std::uint32_t card_errors = 0xfdf98008;

constexpr std::uint64_t block_bytes = 512;
constexpr std::uint64_t status_bytes = 64;
constexpr ByteCount longest(std::uint64_t{1} << 20);

enum Place : std::uint8_t { read_place, write_place, status_place };

constexpr std::array<Operation, 3> operations_of_sdhci = {
    {on_medium("read", Content::loads, ByteCount(block_bytes), longest, 2),
     on_medium("write", Content::stores, ByteCount(block_bytes), longest, 2),
     {"status", Direction::from_device, 2, ByteCount(status_bytes), ByteCount(status_bytes)}}};

/// 1.13: a line of the descriptor table: 8 bytes, or 12 with 64-bit addresses.
struct Line {
    std::uint16_t attributes;
    std::uint16_t length;
    std::array<std::uint32_t, 2> address; ///< the lower half first
};

static_assert(sizeof(Line) == 12);
constexpr std::uint16_t is_valid = 1U << 0;
constexpr std::uint16_t is_last = 1U << 1;
constexpr std::uint16_t is_data = 2U << 4;

/// What became of a command.
struct Outcome {
    bool answered = false;
    std::uint32_t status = 0; ///< of the controller, with its errors in the upper half
    std::uint32_t response = 0;

    [[nodiscard]] bool is_good() const { return answered && (status & any_error) == 0; }
};

class Sdhci final : public DeviceDriver {
  public:
    Sdhci(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("sdhci", operations_of_sdhci, seat), registers_(registers) {}

    ~Sdhci() override {
        if (has_registers())
            registers_.write8(reg::reset, reset_all);
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override;
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    [[nodiscard]] bool has_registers() const { return registers_.size() >= ByteCount(0x100); }

    [[nodiscard]] std::uint64_t line_bytes() const { return wide_ ? 12 : 8; }

    Result<void> start();
    Result<void> identify();
    Result<std::uint32_t> power_up(std::uint32_t wanted);
    void learn_size();
    Result<void> set_clock(unsigned kilohertz);
    Result<void> reset(std::uint8_t what);
    Result<void> describe(const Request& request);
    Result<Outcome> issue(Command command, std::uint32_t argument, std::uint32_t mode = 0);
    Result<std::uint32_t> require_response(Command command, std::uint32_t argument);
    Result<Outcome> transfer(const Request& request);
    Result<void> recover();

    machine::Registers& registers_;
    bool wide_ = false;          ///< 64-bit addresses
    bool counts_blocks_ = false; ///< the card's addresses do; a small card's count bytes
    std::uint32_t card_ = 0;     ///< its relative address, as arguments have it
    bool running_ = false;
};

Result<void> Sdhci::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a controller with too few registers");
    const std::uint32_t capabilities = registers_.read32(reg::capabilities);
    if ((capabilities & has_adma2) == 0)
        return fail(ErrorCode::unsupported, "an SD host controller without ADMA2",
                    {"capabilities", capabilities});
    wide_ = (capabilities & has_64_bits) != 0;
    return start();
}

Result<void> Sdhci::start() {
    running_ = false;
    MOAT_TRY(reset(reset_all));
    if ((registers_.read32(reg::present) & card_inserted) == 0)
        return fail(ErrorCode::unsupported, "an SD host controller without a card");
    function().set_bus_master(true);
    constexpr std::uint8_t at_3_3_volts = 7 << 1 | 1;
    constexpr std::uint8_t longest_timeout = 0xe;
    constexpr std::uint8_t adma2_32 = 2U << 3;
    constexpr std::uint8_t adma2_64 = 3U << 3;
    registers_.write8(reg::power, at_3_3_volts);
    registers_.write8(reg::timeout, longest_timeout);
    registers_.write8(reg::host_control, wide_ ? adma2_64 : adma2_32);
    registers_.write32(reg::status_enable, ~any_error);
    MOAT_TRY(set_clock(400));
    MOAT_TRY(identify());
    MOAT_TRY(set_clock(25'000));
    running_ = true;
    return {};
}

Result<void> Sdhci::reset(std::uint8_t what) {
    registers_.write8(reg::reset, what);
    auto is_reset = [&] { return (registers_.read8(reg::reset) & what) == 0; };
    return require(is_reset, 1s, "the SD host controller does not reset");
}

/// 2.2.14: the base clock divided by twice a power of two, which versions 2 and 3 encode alike.
Result<void> Sdhci::set_clock(unsigned kilohertz) {
    constexpr std::uint16_t run = 1U << 0;
    constexpr std::uint16_t is_stable = 1U << 1;
    constexpr std::uint16_t to_card = 1U << 2;
    constexpr unsigned slowest = 0x200;
    const unsigned base = (registers_.read32(reg::capabilities) >> 8 & 0xff) * 1000;
    unsigned divider = 1;
    while (divider != slowest && base > kilohertz * 2 * divider)
        divider *= 2;
    const auto bits =
        static_cast<std::uint16_t>((divider & 0xff) << 8 | (divider >> 8 & 3) << 6 | run);
    registers_.write16(reg::clock, 0);
    registers_.write16(reg::clock, bits);
    auto stable = [&] { return (registers_.read16(reg::clock) & is_stable) != 0; };
    MOAT_TRY(require(stable, 1s, "the SD clock does not become stable"));
    registers_.write16(reg::clock, bits | to_card);
    return {};
}

/// 3.6; Physical Layer, 4.2 and 4.3: up to a card that is selected.
Result<void> Sdhci::identify() {
    constexpr std::uint32_t pattern = 0x1aa; // 2.7 to 3.6 volts
    constexpr std::uint32_t all_voltages = 0xff8000;
    constexpr std::uint32_t high_capacity = 1U << 30;
    MOAT_LET(const Outcome idle, issue(Command::go_idle, 0));
    MOAT_LET(const Outcome interface, issue(Command::send_interface, pattern));
    const bool is_new = idle.is_good() && interface.is_good();
    if (!is_new) // cards of version 1 do not answer
        MOAT_TRY(reset(reset_command_line));
    MOAT_LET(const std::uint32_t ocr, power_up(all_voltages | (is_new ? high_capacity : 0)));
    counts_blocks_ = (ocr & high_capacity) != 0;
    MOAT_TRY(require_response(Command::all_send_id, 0));
    MOAT_LET(const std::uint32_t address, require_response(Command::send_address, 0));
    card_ = address & 0xffff0000;
    MOAT_TRY(require_response(Command::send_specific_data, card_));
    learn_size();
    MOAT_TRY(require_response(Command::select, card_));
    MOAT_TRY(require_response(Command::set_block_length, block_bytes));
    return {};
}

/// Return: the card's operating conditions once it is ready.
Result<std::uint32_t> Sdhci::power_up(std::uint32_t wanted) {
    constexpr std::uint32_t is_ready = 1U << 31;
    constexpr unsigned attempts = 1000; // in a second
    auto never = [] { return false; };
    for (unsigned attempt = 0; attempt != attempts; ++attempt) {
        MOAT_TRY(require_response(Command::application, 0));
        MOAT_LET(const std::uint32_t ocr, require_response(Command::application_power_up, wanted));
        if ((ocr & is_ready) != 0)
            return ocr;
        MOAT_TRY(wait_until(never, 1ms));
    }
    return fail(ErrorCode::io, "the SD card does not become ready");
}

/// Physical Layer, 5.3: the size of the card, from its response of 120 bits.
void Sdhci::learn_size() {
    std::array<std::uint32_t, 4> words{};
    for (unsigned i = 0; i != words.size(); ++i)
        words.at(i) = registers_.read32(reg::response + 4 * i);
    const bool is_version_2 = (words[3] >> 22 & 3) == 1;
    if (is_version_2) {
        const std::uint64_t units = (words[1] >> 8 & 0x3fffff) + 1; // of 512 KiB
        set_medium(medium_of(units * 1024, ByteCount(block_bytes)));
        return;
    }
    const std::uint64_t units = ((words[2] & 3) << 10 | words[1] >> 22) + 1;
    const unsigned unit_lg2 = (words[1] >> 7 & 7) + 2 + (words[2] >> 8 & 0xf);
    set_medium(medium_of((units << unit_lg2) / block_bytes, ByteCount(block_bytes)));
}

/// 3.7.1: sends a command and waits for its response and, if there are any, for its data.
Result<Outcome> Sdhci::issue(Command command, std::uint32_t argument, std::uint32_t mode) {
    const auto bits = static_cast<std::uint32_t>(command);
    const bool is_busy = (bits & with_data) != 0 || (bits & 3) == (r1b & 3);
    const std::uint32_t end = any_error | (is_busy ? transfer_complete : command_complete);
    registers_.write32(reg::status, ~0U);
    registers_.write32(reg::argument, argument);
    registers_.write32(reg::command, bits << 16 | mode);
    Outcome outcome;
    auto completed = [&] {
        outcome.status = registers_.read32(reg::status);
        return (outcome.status & end) != 0;
    };
    MOAT_LET(outcome.answered, wait_until(completed, 5s));
    outcome.response = registers_.read32(reg::response);
    return outcome;
}

Result<std::uint32_t> Sdhci::require_response(Command command, std::uint32_t argument) {
    MOAT_LET(const Outcome outcome, issue(command, argument));
    if (!outcome.is_good())
        return fail(ErrorCode::io, "the SD card does not answer a command",
                    {"command", static_cast<std::uint64_t>(command) >> 8},
                    {"status", outcome.status});
    return outcome.response;
}

std::vector<Need> Sdhci::lists_for(const Request& request) const {
    if (request.length == ByteCount(0))
        return {};
    return {{.what = "descriptor table",
             .direction = Direction::to_device,
             .size = ByteCount(pages_of(request) * line_bytes()),
             .alignment_lg2 = wide_ ? 3U : 2U}};
}

/// A line describes at most a page, as where pages of memory lie apart.
Result<void> Sdhci::describe(const Request& request) {
    const std::uint64_t lines = pages_of(request);
    if (request.lists.size() != 1 || request.lists[0].bytes.size() < lines * line_bytes())
        return fail(ErrorCode::out_of_range, "the operation needs a descriptor table",
                    {"lines", lines});
    const std::uint64_t end = request.data.value() + request.length.value();
    const std::uint64_t highest = std::max(end, request.lists[0].iova.value() + lines * 8) - 1;
    if (!wide_ && highest >> 32 != 0)
        return fail(ErrorCode::out_of_range, "the SD host controller has 32-bit addresses",
                    {"address", highest});
    std::byte* to = request.lists[0].bytes.data();
    each_page_of(request, [&](std::uint64_t at, std::uint64_t bytes) {
        const auto last = static_cast<std::uint16_t>(at + bytes == end ? is_last : 0);
        const Line line{
            .attributes = static_cast<std::uint16_t>(is_valid | is_data | last),
            .length = static_cast<std::uint16_t>(bytes),
            .address = {static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at >> 32)}};
        std::memcpy(to, &line, line_bytes());
        to += line_bytes();
    });
    return {};
}

/// 3.7.2.3
Result<Outcome> Sdhci::transfer(const Request& request) {
    const bool is_status = request.operation == status_place;
    const bool writes = request.operation == write_place;
    const std::uint64_t bytes = is_status ? status_bytes : block_bytes;
    const auto blocks = static_cast<std::uint32_t>(request.length.value() / bytes);
    const bool many = blocks > 1;
    if (is_status) {
        MOAT_LET(const Outcome announced, issue(Command::application, card_));
        if (!announced.is_good())
            return announced;
    }
    registers_.write32(reg::blocks, blocks << 16 | static_cast<std::uint32_t>(bytes));
    registers_.write_halves(reg::table, request.lists[0].iova.value());
    const std::uint32_t mode =
        by_dma | count_blocks | (writes ? 0 : to_host) | (many ? multiple | stop_after_it : 0);
    if (is_status)
        return issue(Command::application_status, 0, mode);
    const std::uint64_t at = request.position * (counts_blocks_ ? 1 : block_bytes);
    const Command command = writes ? (many ? Command::write_many : Command::write_one)
                                   : (many ? Command::read_many : Command::read_one);
    MOAT_LET(Outcome outcome, issue(command, static_cast<std::uint32_t>(at), mode));
    // Physical Layer, 4.3.3: the end of a read of the last block may report an error that is none.
    constexpr unsigned of_automatic_stop = reg::response + 12;
    if (writes && many)
        outcome.response |= registers_.read32(of_automatic_stop);
    return outcome;
}

Result<Answer> Sdhci::do_run(const Request& request) {
    MOAT_TRY(describe(request));
    if (!running_)
        MOAT_TRY(start());
    MOAT_LET(const Outcome outcome, transfer(request));
    const std::uint64_t code = std::uint64_t{outcome.status} << 32 | outcome.response;
    if (!outcome.answered) {
        running_ = false;
        return Answer{Verdict::no_answer, code};
    }
    if (outcome.is_good() && (outcome.response & card_errors) == 0)
        return Answer{Verdict::success, code};
    MOAT_TRY(recover());
    return Answer{Verdict::failure, code};
}

/// 3.10.1: resets both lines and stops the card's transfer. A card that has none does not answer,
/// so its state decides whether the next operation starts over.
Result<void> Sdhci::recover() {
    running_ = false;
    const auto reset_lines = [&]() -> Result<void> {
        MOAT_TRY(reset(reset_command_line));
        return reset(reset_data_lines);
    };
    MOAT_TRY(reset_lines());
    MOAT_LET(const Outcome stopped, issue(Command::stop, 0));
    if (!stopped.is_good())
        MOAT_TRY(reset_lines());
    MOAT_LET(const Outcome state, issue(Command::send_status, card_));
    constexpr std::uint32_t ready_to_transfer = 4;
    running_ = state.is_good() && (state.response >> 9 & 0xf) == ready_to_transfer;
    return {};
}

} // namespace sdhci

Result<std::unique_ptr<Driver>> start_sdhci(const Seat& seat) {
    return started<sdhci::Sdhci>(seat, 0);
}

} // namespace moat::audit
