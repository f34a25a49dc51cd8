// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's registers and queues: arbitration, commands in, completions out.
#include "machine/soft/nvme.hpp"

#include "moat/core/bits.hpp"
#include "moat/core/check.hpp"

#include <algorithm>

namespace moat::machine::soft {

namespace {

namespace reg {

constexpr std::uint64_t mask_set = 0x0c;
constexpr std::uint64_t mask_clear = 0x10;
constexpr std::uint64_t configuration = 0x14;
constexpr std::uint64_t admin_sizes = 0x24;
constexpr std::uint64_t admin_submissions = 0x28;
constexpr std::uint64_t admin_completions = 0x30;
constexpr std::uint64_t doorbells = 0x1000;

} // namespace reg

/// 256 contiguous entries per queue; half a second to start; NVM commands; pages of 4K.
constexpr std::uint64_t capabilities =
    (Nvme::most_entries - 1) | bit(16) | std::uint64_t{1} << 24 | bit(37);
constexpr std::uint32_t version_1_4 = 0x00010400;
constexpr std::uint64_t register_bytes = 0x4000;

constexpr std::uint32_t enable = 1U << 0;
constexpr std::uint32_t ready = 1U << 0;
constexpr std::uint32_t fatal = 1U << 1;
constexpr std::uint32_t shutdown_complete = 2U << 2;

constexpr std::uint64_t submission_bytes = 64;
constexpr std::uint64_t completion_bytes = 16;

/// Entries of 2^6 and 2^4 bytes, in the configuration register.
[[nodiscard]] bool entry_sizes_are_right(std::uint32_t configuration) {
    return (configuration >> 16 & 0xf) == 6 && (configuration >> 20 & 0xf) == 4;
}

/// The half of a 64-bit register that a 32-bit write at `offset` affects.
[[nodiscard]] std::uint64_t with_half(std::uint64_t old, std::uint64_t offset, Width width,
                                      std::uint64_t value) {
    if (width == Width::bits64)
        return value;
    const std::uint64_t half = value & low_bits(32);
    return offset % 8 == 0 ? (old & ~low_bits(32)) | half : (old & low_bits(32)) | half << 32;
}

} // namespace

Nvme::Nvme(const NvmeOptions& options)
    : block_lg2_(options.block_lg2), medium_(options.capacity.value()) {
    MOAT_CHECK(block_lg2_ >= 9 && block_lg2_ <= 12, "blocks of 512 to 4096 bytes");
    MOAT_CHECK(!medium_.empty() && medium_.size() % bit(block_lg2_) == 0, "a medium of blocks");
}

FunctionInfo Nvme::info() const {
    FunctionInfo info;
    info.vendor = 0x1b36; // like QEMU's
    info.device = 0x0010;
    info.class_code = 0x010802;
    info.bars[0] = {.kind = BarKind::memory64, .size = ByteCount(register_bytes)};
    return info;
}

std::uint64_t Nvme::read(unsigned bar, std::uint64_t offset, Width width) {
    if (bar != 0 || (width != Width::bits32 && width != Width::bits64))
        return ~std::uint64_t{0};
    const auto high = [](std::uint32_t half) { return std::uint64_t{half} << 32; };
    const std::array<std::uint64_t, 7> registers = {
        // from offset 0, as words of 64 bits
        capabilities,      version_1_4 | high(masked_), masked_ | high(configuration_),
        high(status_),     high(admin_sizes_),          admin_submissions_,
        admin_completions_};
    std::uint64_t value = offset / 8 < registers.size() ? registers.at(offset / 8) : 0;
    value >>= offset % 8 * 8;
    return width == Width::bits32 ? value & low_bits(32) : value;
}

void Nvme::write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) {
    if (bar != 0 || (width != Width::bits32 && width != Width::bits64))
        return;
    const auto low = static_cast<std::uint32_t>(value);
    if (offset >= reg::doorbells)
        return ring((offset - reg::doorbells) / 4, low);
    switch (offset) {
    case reg::mask_set:
        masked_ |= low;
        break;
    case reg::mask_clear:
        masked_ &= ~low;
        break;
    case reg::configuration:
        configure(low);
        break;
    case reg::admin_sizes:
        admin_sizes_ = low;
        break;
    case reg::admin_submissions:
    case reg::admin_submissions + 4:
        admin_submissions_ = with_half(admin_submissions_, offset, width, value);
        break;
    case reg::admin_completions:
    case reg::admin_completions + 4:
        admin_completions_ = with_half(admin_completions_, offset, width, value);
        break;
    default:
        break;
    }
}

void Nvme::configure(std::uint32_t value) {
    const bool was_enabled = (configuration_ & enable) != 0;
    configuration_ = value;
    if (was_enabled && (value & enable) == 0)
        return stop();
    if (!was_enabled && (value & enable) != 0) {
        if (!may_start()) {
            status_ |= fatal;
            return;
        }
        const auto entries = [&](unsigned low) { return (admin_sizes_ >> low & 0xfff) + 1; };
        submissions_[0] = {.base = Iova(admin_submissions_), .entries = entries(0)};
        completions_[0] = {
            .base = Iova(admin_completions_), .entries = entries(16), .interrupts = true};
        status_ |= ready;
    }
    if ((value >> 14 & 3) != 0)
        status_ |= shutdown_complete;
}

bool Nvme::may_start() const {
    const std::uint32_t submissions = admin_sizes_ & 0xfff;
    const std::uint32_t completions = admin_sizes_ >> 16 & 0xfff;
    const bool sizes = submissions != 0 && completions != 0 && submissions < most_entries &&
                       completions < most_entries;
    const bool aligned = ((admin_submissions_ | admin_completions_) & (page_bytes - 1)) == 0;
    const bool pages_of_4k = (configuration_ >> 7 & 0xf) == 0;
    const bool nvm_commands = (configuration_ >> 4 & 7) == 0;
    return sizes && aligned && pages_of_4k && nvm_commands;
}

void Nvme::ring(std::uint64_t doorbell, std::uint32_t value) {
    const std::uint64_t queue = doorbell / 2;
    if (queue >= most_queues)
        return;
    // Ignores a value outside the queue, and a queue that does not exist.
    if (doorbell % 2 == 0) {
        if (value < submissions_[queue].entries)
            submissions_[queue].tail = value;
    } else if (value < completions_[queue].entries) {
        completions_[queue].head = value;
    }
}

bool Nvme::step(BusMaster& bus) {
    if ((status_ & ready) != 0 && (status_ & fatal) == 0) {
        for (unsigned looked = 0; looked != most_queues; ++looked) {
            const unsigned queue = turn_;
            turn_ = turn_ + 1 == most_queues ? 0 : turn_ + 1;
            const SubmissionQueue& from = submissions_[queue];
            if (from.entries == 0 || from.head == from.tail ||
                completions_[from.completions].full())
                continue;
            if (!take_command(bus, queue))
                status_ |= fatal; // its own structures are not accessible
            return true;
        }
    }
    return data_.after_completion(bus);
}

bool Nvme::take_command(BusMaster& bus, unsigned queue) {
    SubmissionQueue& from = submissions_[queue];
    Command command;
    const Iova at(from.base.value() + from.head * submission_bytes);
    if (bus.read(at, std::as_writable_bytes(std::span(command.words))).value() != sizeof command)
        return false;
    from.head = (from.head + 1) % from.entries;
    const std::optional<Outcome> outcome =
        queue == 0 ? run_admin(bus, command) : run_io(bus, command);
    // Only admin commands delete queues, and never the admin queue: `from` stays valid.
    return !outcome || complete(bus, from, queue, command.number(), *outcome);
}

bool Nvme::complete(BusMaster& bus, const SubmissionQueue& from, unsigned queue,
                    std::uint16_t number, Outcome outcome) {
    CompletionQueue& to = completions_[from.completions];
    const std::uint32_t status = static_cast<std::uint32_t>(outcome.status) << 17;
    const std::array<std::uint32_t, 4> entry = {
        outcome.result, 0, from.head | queue << 16,
        number | static_cast<std::uint32_t>(to.phase) << 16 | status};
    const Iova at(to.base.value() + to.tail * completion_bytes);
    if (bus.write(at, std::as_bytes(std::span(entry))).value() != sizeof entry)
        return false;
    to.tail = (to.tail + 1) % to.entries;
    if (to.tail == 0)
        to.phase = !to.phase;
    if (to.interrupts && (masked_ >> std::min(to.vector, 31U) & 1) == 0)
        bus.interrupt(to.vector);
    return true;
}

Nvme::Outcome Nvme::create_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    const unsigned entries = (command.words[10] >> 16) + 1;
    const unsigned vector = command.words[11] >> 16;
    const bool contiguous = (command.words[11] & 1) != 0;
    if (queue == 0 || queue >= most_queues || completions_[queue].entries != 0)
        return {Status::invalid_queue_identifier};
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (vector >= most_queues)
        return {Status::invalid_vector};
    if (!contiguous || command.wide(6) % page_bytes != 0 || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    completions_[queue] = {.base = Iova(command.wide(6)),
                           .entries = entries,
                           .interrupts = (command.words[11] & 2) != 0,
                           .vector = vector};
    return {};
}

Nvme::Outcome Nvme::create_submission_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    const unsigned entries = (command.words[10] >> 16) + 1;
    const unsigned completions = command.words[11] >> 16;
    const bool contiguous = (command.words[11] & 1) != 0;
    if (queue == 0 || queue >= most_queues || submissions_[queue].entries != 0)
        return {Status::invalid_queue_identifier};
    if (completions == 0 || completions >= most_queues || completions_[completions].entries == 0)
        return {Status::completion_queue_invalid};
    if (entries < 2 || entries > most_entries)
        return {Status::invalid_queue_size};
    if (!contiguous || command.wide(6) % page_bytes != 0 || !entry_sizes_are_right(configuration_))
        return {Status::invalid_field};
    submissions_[queue] = {
        .base = Iova(command.wide(6)), .entries = entries, .completions = completions};
    return {};
}

Nvme::Outcome Nvme::delete_completion_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || completions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    for (const SubmissionQueue& each : submissions_)
        if (each.entries != 0 && each.completions == queue)
            return {Status::invalid_queue_deletion};
    completions_[queue] = {};
    return {};
}

Nvme::Outcome Nvme::delete_submission_queue(const Command& command) {
    const unsigned queue = command.words[10] & 0xffff;
    if (queue == 0 || queue >= most_queues || submissions_[queue].entries == 0)
        return {Status::invalid_queue_identifier};
    submissions_[queue] = {};
    return {};
}

void Nvme::stop() {
    status_ = 0;
    submissions_ = {};
    completions_ = {};
    features_ = {};
    waiting_for_events_ = 0;
    turn_ = 0;
}

void Nvme::reset() {
    stop();
    data_.reset();
    configuration_ = masked_ = admin_sizes_ = 0;
    admin_submissions_ = admin_completions_ = 0;
}

} // namespace moat::machine::soft
