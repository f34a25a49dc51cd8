// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The edu device's registers and its DMA engine.
#include "machine/soft/edu.hpp"

#include <optional>
#include <span>
#include <utility>

namespace moat::machine::soft {

namespace {

namespace reg {

constexpr std::uint64_t identification = 0x00;
constexpr std::uint64_t liveness = 0x04;
constexpr std::uint64_t factorial = 0x08;
constexpr std::uint64_t status = 0x20;
constexpr std::uint64_t interrupt_status = 0x24;
constexpr std::uint64_t interrupt_raise = 0x60;
constexpr std::uint64_t interrupt_acknowledge = 0x64;
constexpr std::uint64_t dma = 0x80;

} // namespace reg

constexpr std::uint32_t identity = 0x010000ed;
constexpr std::uint32_t status_computing = 1U << 0;
constexpr std::uint32_t status_interrupt = 1U << 7;
constexpr std::uint32_t raised_by_factorial = 1U << 0;
constexpr std::uint32_t raised_by_dma = 1U << 8;
constexpr std::uint64_t command_run = 1U << 0;
constexpr std::uint64_t command_to_memory = 1U << 1;
constexpr std::uint64_t command_interrupt = 1U << 2;

/// Registers from `dma` on also take accesses of 64 bits.
bool has_register(unsigned bar, std::uint64_t offset, Width width) {
    return bar == 0 && (width == Width::bits32 || (width == Width::bits64 && offset >= reg::dma));
}

/// The index of a register of 64 bits; nothing if `offset` is none's.
std::optional<std::size_t> dma_index(std::uint64_t offset) {
    const std::uint64_t index = (offset - reg::dma) / 8;
    return offset >= reg::dma && offset % 8 == 0 && index < 4 ? std::optional(index) : std::nullopt;
}

} // namespace

FunctionInfo Edu::info() const {
    FunctionInfo info;
    info.vendor = 0x1234;
    info.device = 0x11e8;
    info.class_code = 0x00ff00;
    info.bars[0] = {.kind = BarKind::memory32, .size = ByteCount(1U << 20)};
    return info;
}

std::uint64_t Edu::read(unsigned bar, std::uint64_t offset, Width width) {
    if (!has_register(bar, offset, width))
        return ~std::uint64_t{0};
    if (const auto index = dma_index(offset))
        return dma_.at(*index);
    switch (offset) {
    case reg::identification:
        return identity;
    case reg::liveness:
        return liveness_;
    case reg::factorial:
        return factorial_;
    case reg::status:
        return status_;
    case reg::interrupt_status:
        return interrupts_;
    default:
        return ~std::uint64_t{0};
    }
}

void Edu::write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) {
    if (!has_register(bar, offset, width))
        return;
    if (const auto index = dma_index(offset)) {
        if ((dma_[command] & command_run) == 0 && (*index != command || (value & command_run) != 0))
            dma_.at(*index) = value;
        return;
    }
    const auto low = static_cast<std::uint32_t>(value);
    switch (offset) {
    case reg::liveness:
        liveness_ = ~low;
        break;
    case reg::factorial:
        if ((status_ & status_computing) == 0) {
            factorial_ = low;
            status_ |= status_computing;
        }
        break;
    case reg::status:
        status_ = (status_ & ~status_interrupt) | (low & status_interrupt);
        break;
    case reg::interrupt_raise:
        to_raise_ |= low;
        break;
    case reg::interrupt_acknowledge:
        interrupts_ &= ~low;
        break;
    default:
        break;
    }
}

bool Edu::step(BusMaster& bus) {
    if (data_.after_completion(bus))
        return true;
    if (to_raise_ != 0) {
        raise(bus, std::exchange(to_raise_, 0));
        return true;
    }
    if ((status_ & status_computing) != 0) {
        std::uint32_t product = 1;
        // Past 34 the product has 32 factors of 2, and stays 0.
        for (std::uint32_t factor = 2; factor <= factorial_ && product != 0; ++factor)
            product *= factor;
        factorial_ = product;
        status_ &= ~status_computing;
        if ((status_ & status_interrupt) != 0)
            raise(bus, raised_by_factorial);
        return true;
    }
    if ((dma_[command] & command_run) != 0) {
        transfer(bus);
        return true;
    }
    return data_.pending();
}

std::uint64_t Edu::own_address() const {
    return dma_[(dma_[command] & command_to_memory) != 0 ? source : destination] - buffer_start;
}

std::optional<Segment> Edu::memory() const {
    const std::uint64_t own = own_address();
    if (own >= buffer_bytes || dma_[count] > buffer_bytes - own || dma_[count] == 0)
        return std::nullopt;
    const bool to_memory = (dma_[command] & command_to_memory) != 0;
    return Segment{Iova(dma_[to_memory ? destination : source] & dma_mask_), dma_[count]};
}

bool Edu::uses(IovaRange range, BusMaster& /*bus*/) const {
    const auto named = (dma_[command] & command_run) != 0 ? memory() : std::nullopt;
    return named && IovaRange(named->start, ByteCount(named->bytes)).overlaps(range);
}

void Edu::transfer(BusMaster& bus) {
    if (const auto named = memory()) {
        const bool to_memory = (dma_[command] & command_to_memory) != 0;
        const std::uint64_t own = own_address();
        const Segment segment = *named;
        const std::span<std::byte> bytes = std::span(buffer_).subspan(own, dma_[count]);
        // The device cannot report a refused access.
        if (to_memory)
            static_cast<void>(data_.to_memory(bus, {&segment, 1}, bytes));
        else
            static_cast<void>(data_.from_memory(bus, {&segment, 1}, bytes));
    }
    dma_[command] &= ~command_run;
    if ((dma_[command] & command_interrupt) != 0)
        raise(bus, raised_by_dma);
}

void Edu::raise(BusMaster& bus, std::uint32_t status) {
    interrupts_ |= status;
    if (interrupts_ != 0)
        bus.interrupt(0);
}

void Edu::reset() {
    data_.reset();
    buffer_ = {};
    liveness_ = factorial_ = status_ = interrupts_ = to_raise_ = 0;
    dma_ = {};
}

} // namespace moat::machine::soft
