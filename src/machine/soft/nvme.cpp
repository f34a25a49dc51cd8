// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's registers, and its arbitration.
#include "machine/soft/nvme.hpp"

#include "moat/core/bits.hpp"
#include "moat/core/check.hpp"

namespace moat::machine::soft {

namespace {

namespace reg {

constexpr std::uint64_t capabilities = 0x00;
constexpr std::uint64_t version = 0x08;
constexpr std::uint64_t mask_set = 0x0c;
constexpr std::uint64_t mask_clear = 0x10;
constexpr std::uint64_t configuration = 0x14;
constexpr std::uint64_t status = 0x1c;
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
    const std::uint64_t aligned = offset & ~std::uint64_t{7};
    std::uint64_t value = 0;
    switch (aligned) {
    case reg::capabilities:
        value = capabilities;
        break;
    case reg::version:
        value = version_1_4 | std::uint64_t{masked_} << 32;
        break;
    case reg::mask_clear:
        value = masked_ | std::uint64_t{configuration_} << 32;
        break;
    case reg::status & ~std::uint64_t{7}:
        value = std::uint64_t{status_} << 32;
        break;
    case reg::admin_sizes & ~std::uint64_t{7}:
        value = std::uint64_t{admin_sizes_} << 32;
        break;
    case reg::admin_submissions:
        value = admin_submissions_;
        break;
    case reg::admin_completions:
        value = admin_completions_;
        break;
    default:
        break;
    }
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
