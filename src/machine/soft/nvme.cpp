// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's registers and doorbells; arbitration, commands in, completions out.
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

/// Contiguous queues; half a second to start; NVM commands; pages of 4K; doorbells of 4 bytes.
constexpr std::uint64_t capabilities =
    (Nvme::most_entries - 1) | bit(16) | std::uint64_t{1} << 24 | bit(37);
constexpr std::uint32_t version_1_4 = 0x00010400;
constexpr std::uint64_t register_bytes = 0x4000;

constexpr std::uint32_t enable = 1U << 0;
constexpr std::uint32_t shutdown_wanted = 3U << 14;
constexpr std::uint32_t ready = 1U << 0;
constexpr std::uint32_t fatal = 1U << 1;
constexpr std::uint32_t shutdown_begun = 1U << 2;
constexpr std::uint32_t shutdown_complete = 2U << 2;

/// Asynchronous events of the error type; their log page is the first.
constexpr std::uint32_t event_invalid_doorbell = 0x010000;
constexpr std::uint32_t event_invalid_doorbell_value = 0x010100;

constexpr std::uint64_t submission_bytes = 64;
constexpr std::uint64_t completion_bytes = 16;

[[nodiscard]] platform::Mapping medium_of(const NvmeOptions& options) {
    auto mapping = platform::Mapping::create(options.medium, options.capacity);
    MOAT_CHECK(mapping.has_value(), "there is memory for the medium, or the file can be mapped");
    return *std::move(mapping);
}

[[nodiscard]] std::uint64_t with_low_half(std::uint64_t old, std::uint32_t half) {
    return (old & ~low_bits(32)) | half;
}

[[nodiscard]] std::uint64_t with_high_half(std::uint64_t old, std::uint32_t half) {
    return (old & low_bits(32)) | std::uint64_t{half} << 32;
}

/// Whether the command itself is not at fault.
[[nodiscard]] bool is_worth_a_retry(Nvme::Status status) {
    return status == Nvme::Status::data_transfer_error || status == Nvme::Status::command_aborted;
}

[[nodiscard]] bool is_of_the_data_pointer(Nvme::Status status) {
    using Status = Nvme::Status;
    constexpr std::array all = {Status::invalid_segment_descriptor,
                                Status::invalid_descriptor_count, Status::invalid_data_length,
                                Status::invalid_descriptor_type, Status::invalid_prp_offset};
    return std::ranges::find(all, status) != all.end();
}

} // namespace

Nvme::Nvme(const NvmeOptions& options) : options_(options), medium_(medium_of(options)) {
    MOAT_CHECK(options.block_lg2 >= 9 && options.block_lg2 <= 12, "blocks of 512 to 4096 bytes");
    MOAT_CHECK(is_aligned(options.capacity.value(), options.block_lg2), "a medium of blocks");
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
    if (bar != 0)
        return all_ones(width);
    const auto high = [](std::uint32_t half) { return std::uint64_t{half} << 32; };
    const std::array<std::uint64_t, 7> registers = {
        // from offset 0, as words of 64 bits
        capabilities,      version_1_4 | high(masked_), masked_ | high(configuration_),
        high(status_),     high(admin_sizes_),          admin_submissions_,
        admin_completions_};
    const std::uint64_t value = offset / 8 < registers.size() ? registers.at(offset / 8) : 0;
    return value >> offset % 8 * 8 & all_ones(width);
}

/// As writes of 32 bits; a narrower one keeps the rest of a register that has contents.
void Nvme::write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) {
    if (bar != 0)
        return;
    if (width == Width::bits64) {
        write_register(offset, static_cast<std::uint32_t>(value));
        return write_register(offset + 4, static_cast<std::uint32_t>(value >> 32));
    }
    const std::uint64_t start = offset & ~std::uint64_t{3};
    const bool has_contents = start >= reg::configuration && start < reg::doorbells;
    const std::uint64_t old = has_contents ? read(bar, start, Width::bits32) : 0;
    const std::uint64_t written = all_ones(width) << offset % 4 * 8;
    write_register(
        start, static_cast<std::uint32_t>((old & ~written) | (value << offset % 4 * 8 & written)));
}

void Nvme::write_register(std::uint64_t offset, std::uint32_t value) {
    if (offset >= reg::doorbells)
        return ring((offset - reg::doorbells) / 4, value);
    switch (offset) {
    case reg::mask_set:
        masked_ |= value;
        break;
    case reg::mask_clear:
        masked_ &= ~value;
        break;
    case reg::configuration:
        configure(value);
        break;
    case reg::admin_sizes:
        admin_sizes_ = value;
        break;
    case reg::admin_submissions:
        admin_submissions_ = with_low_half(admin_submissions_, value);
        break;
    case reg::admin_submissions + 4:
        admin_submissions_ = with_high_half(admin_submissions_, value);
        break;
    case reg::admin_completions:
        admin_completions_ = with_low_half(admin_completions_, value);
        break;
    case reg::admin_completions + 4:
        admin_completions_ = with_high_half(admin_completions_, value);
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
    if (!was_enabled && (value & enable) != 0)
        start();
    if ((value & shutdown_wanted) != 0 && (status_ & shutdown_complete) == 0)
        status_ |= shutdown_begun;
}

void Nvme::start() {
    if (admin_sizes_ == 0 || admin_submissions_ == 0 || admin_completions_ == 0)
        remark({.mistake = Mistake::enabled_before_queues,
                .value = admin_sizes_ == 0         ? reg::admin_sizes
                         : admin_submissions_ == 0 ? reg::admin_submissions
                                                   : reg::admin_completions});
    if (!may_start()) {
        status_ |= fatal;
        return;
    }
    const auto entries = [&](unsigned low) { return (admin_sizes_ >> low & 0xfff) + 1; };
    submissions_[0] = {.base = Iova(admin_submissions_), .entries = entries(0)};
    completions_[0] = {
        .base = Iova(admin_completions_), .entries = entries(16), .interrupts = true};
    starting_ = true;
}

bool Nvme::may_start() const {
    const bool sizes = (admin_sizes_ & 0xfff) != 0 && (admin_sizes_ >> 16 & 0xfff) != 0;
    const bool aligned = ((admin_submissions_ | admin_completions_) & (page_bytes - 1)) == 0;
    const bool pages_of_4k = (configuration_ >> 7 & 0xf) == 0;
    const bool nvm_commands = (configuration_ >> 4 & 7) == 0;
    return sizes && aligned && pages_of_4k && nvm_commands;
}

void Nvme::ring(std::uint64_t doorbell, std::uint32_t value) {
    const std::optional<Mistake> mistake = move(doorbell, value);
    if (!mistake)
        return;
    remark({.mistake = *mistake, .queue = static_cast<unsigned>(doorbell / 2), .value = value});
    if (*mistake != Mistake::doorbell_while_disabled)
        event_ = *mistake == Mistake::doorbell_without_queue ? event_invalid_doorbell
                                                             : event_invalid_doorbell_value;
}

/// Moves a queue's tail or head. Return: why it does not.
std::optional<Mistake> Nvme::move(std::uint64_t doorbell, std::uint32_t value) {
    if ((status_ & ready) == 0)
        return Mistake::doorbell_while_disabled;
    const std::uint64_t queue = doorbell / 2;
    const bool is_tail = doorbell % 2 == 0;
    if (queue >= most_queues ||
        (is_tail ? submissions_[queue].entries : completions_[queue].entries) == 0)
        return Mistake::doorbell_without_queue;
    if (value >= (is_tail ? submissions_[queue].entries : completions_[queue].entries))
        return Mistake::doorbell_past_queue;
    if (is_tail) {
        submissions_[queue].tail = value;
        return std::nullopt;
    }
    CompletionQueue& released = completions_[queue];
    const auto distance = [&](unsigned to) {
        return (to + released.entries - released.head) % released.entries;
    };
    if (distance(value) > distance(released.tail))
        return Mistake::doorbell_past_completions;
    released.head = value;
    return std::nullopt;
}

bool Nvme::step(BusMaster& bus) {
    if (data_.after_completion(bus) || settle() || send_event(bus) || run_next_command(bus))
        return true;
    return data_.pending();
}

bool Nvme::settle() {
    if (starting_) {
        starting_ = false;
        status_ |= ready;
        return true;
    }
    if ((status_ & shutdown_begun) == 0)
        return false;
    status_ = (status_ & ~shutdown_begun) | shutdown_complete;
    return true;
}

bool Nvme::send_event(BusMaster& bus) {
    if ((status_ & (ready | fatal)) != ready || event_ == 0 || event_is_unread_ ||
        event_requests_.empty() || completions_[0].full())
        return false;
    const std::uint16_t request = event_requests_.front();
    event_requests_.erase(event_requests_.begin());
    complete(bus, 0, request, {.result = event_});
    event_ = 0;
    event_is_unread_ = true;
    return true;
}

bool Nvme::run_next_command(BusMaster& bus) {
    if ((status_ & (ready | fatal)) != ready)
        return false;
    for (unsigned looked = 0; looked != most_queues; ++looked) {
        const unsigned queue = turn_;
        turn_ = turn_ + 1 == most_queues ? 0 : turn_ + 1;
        const SubmissionQueue& from = submissions_[queue];
        if (from.entries == 0 || from.head == from.tail || completions_[from.completions].full())
            continue;
        take_command(bus, queue);
        return true;
    }
    return false;
}

void Nvme::take_command(BusMaster& bus, unsigned queue) {
    SubmissionQueue& from = submissions_[queue];
    Command command;
    const Iova at(from.base.value() + from.head * submission_bytes);
    if (bus.read(at, std::as_writable_bytes(std::span(command.words))).value() != sizeof command) {
        status_ |= fatal;
        return;
    }
    from.head = (from.head + 1) % from.entries;
    const std::optional<Outcome> outcome =
        queue == 0 ? run_admin(bus, command) : run_io(bus, command);
    if (!outcome)
        return;
    if (is_of_the_data_pointer(outcome->status))
        remark(
            {.mistake = Mistake::invalid_data_pointer, .queue = queue, .value = command.number()});
    complete(bus, queue, command.number(), *outcome);
}

void Nvme::complete(BusMaster& bus, unsigned queue, std::uint16_t number, Outcome outcome) {
    const SubmissionQueue& from = submissions_[queue];
    CompletionQueue& to = completions_[from.completions];
    std::uint32_t status = static_cast<std::uint32_t>(outcome.status);
    if (outcome.status != Status::success && !is_worth_a_retry(outcome.status))
        status |= do_not_retry;
    const std::array<std::uint32_t, 4> entry = {
        outcome.result, 0, from.head | queue << 16,
        number | static_cast<std::uint32_t>(to.phase) << 16 | status << 17};
    const Iova at(to.base.value() + to.tail * completion_bytes);
    if (bus.write(at, std::as_bytes(std::span(entry))).value() != sizeof entry) {
        status_ |= fatal;
        return;
    }
    to.tail = (to.tail + 1) % to.entries;
    if (to.tail == 0)
        to.phase = !to.phase;
    if (to.interrupts && (masked_ >> std::min(to.vector, 31U) & 1) == 0)
        bus.interrupt(to.vector);
}

bool Nvme::disabled() const {
    return (configuration_ & enable) == 0;
}

void Nvme::stop() {
    status_ = masked_ = event_ = 0;
    starting_ = event_is_unread_ = false;
    submissions_ = {};
    completions_ = {};
    io_submissions_ = io_completions_ = most_io_queues;
    features_ = default_features;
    event_requests_.clear();
    turn_ = 0;
}

void Nvme::reset() {
    stop();
    data_.reset();
    configuration_ = admin_sizes_ = 0;
    admin_submissions_ = admin_completions_ = 0;
}

} // namespace moat::machine::soft
