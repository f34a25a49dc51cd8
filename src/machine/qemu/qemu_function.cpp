// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "qemu_function.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>
#include <atomic>

namespace moat::machine::qemu {

void MemoryRegisters::check(std::uint64_t offset, Width width) const {
    const auto bytes = static_cast<std::uint64_t>(width);
    MOAT_CHECK(offset % bytes == 0 && offset < size_.value() && bytes <= size_.value() - offset,
               "an access to registers lies inside and is aligned");
}

std::uint64_t MemoryRegisters::read(std::uint64_t offset, Width width) {
    check(offset, width);
    return qtest_.read(Space::memory, start_.value() + offset, width);
}

void MemoryRegisters::write(std::uint64_t offset, Width width, std::uint64_t value) {
    check(offset, width);
    qtest_.write(Space::memory, start_.value() + offset, width, value);
}

PhysicalAddress Ecam::of(Bdf function) {
    return PhysicalAddress(ecam.value() + (std::uint64_t{function.requester()} << 12));
}

std::uint32_t Ecam::read(Bdf function, unsigned offset) {
    return static_cast<std::uint32_t>(
        qtest_.read(Space::memory, of(function).value() + offset, Width::bits32));
}

void Ecam::write(Bdf function, unsigned offset, std::uint32_t value) {
    qtest_.write(Space::memory, of(function).value() + offset, Width::bits32, value);
}

QemuFunction::QemuFunction(QemuMachine& machine, const PciFunction& function)
    : machine_(machine), function_(function),
      config_(machine.qtest_, Ecam::of(function.info.address), ByteCount(4096)) {}

QemuFunction::~QemuFunction() {
    set_bus_master(false);
    machine_.qtest_.drain();
    machine_.opened_.erase(function_.info.address);
}

Result<Registers*> QemuFunction::bar(unsigned index) {
    if (index >= bars_.size() || function_.info.bars[index].kind == BarKind::absent)
        return fail(ErrorCode::not_found, "the function has no such BAR", {"bar", index});
    if (function_.info.bars[index].kind == BarKind::ports)
        return fail(ErrorCode::unsupported, "the BAR decodes ports", {"bar", index});
    if (!function_.bars[index])
        return fail(ErrorCode::no_space, "there was no room for the BAR", {"bar", index});
    if (!bars_[index])
        bars_[index] = std::make_unique<MemoryRegisters>(machine_.qtest_, *function_.bars[index],
                                                         function_.info.bars[index].size);
    return bars_[index].get();
}

void QemuFunction::set_bus_master(bool allowed) {
    const std::uint16_t command = config_.read16(pci::command);
    config_.write16(pci::command,
                    static_cast<std::uint16_t>(allowed ? command | pci::command_master
                                                       : command & ~pci::command_master));
}

/// PCI Local Bus 3.0, 6.8.2: the vector table lies in a BAR, 16 bytes per vector.
Result<unsigned> QemuFunction::enable_interrupts(unsigned wanted) {
    const Bdf address = function_.info.address;
    const auto found = find_capability(*machine_.config_, address, pci::capability_msix);
    if (!found)
        return fail(ErrorCode::unsupported, "the function has no MSI-X",
                    {"requester", address.requester()});
    const unsigned control = *found + 2;
    const std::uint32_t table = config_.read32(*found + 4);
    const auto registers = bar(table & 7);
    if (!registers)
        return std::unexpected(registers.error());
    constexpr unsigned most = 1024; // words of 32 bits in the page
    const unsigned count = std::min({wanted, (config_.read16(control) & 0x7ffU) + 1, most});
    const std::uint64_t first = table & ~7U;
    if (count == 0 || first + 16ULL * count > (*registers)->size().value())
        return fail(ErrorCode::io, "the table of MSI-X vectors does not fit its BAR",
                    {"offset", first}, {"vectors", count});
    const auto seen = machine_.map_interrupts(address);
    if (!seen)
        return std::unexpected(seen.error());
    interrupts_ = seen->second;
    for (unsigned vector = 0; vector != count; ++vector) {
        const std::uint64_t entry = first + 16ULL * vector;
        const std::uint64_t message = seen->first.value() + 4ULL * vector;
        (*registers)->write32(entry, static_cast<std::uint32_t>(message));
        (*registers)->write32(entry + 4, static_cast<std::uint32_t>(message >> 32));
        (*registers)->write32(entry + 8, 1);
        (*registers)->write32(entry + 12, 0); // unmasked
    }
    constexpr std::uint16_t enabled = 1U << 15;
    config_.write16(control, enabled);
    return count;
}

bool QemuFunction::take_interrupt(unsigned vector) {
    if (vector >= interrupts_.size() / sizeof(std::uint32_t))
        return false;
    auto& word = reinterpret_cast<std::uint32_t*>(interrupts_.data())[vector];
    const std::atomic_ref<std::uint32_t> message(word);
    return message.load(std::memory_order_relaxed) != 0 &&
           message.exchange(0, std::memory_order_acquire) != 0;
}

/// PCI Express Base 5.0, 7.5.3.3 and 7.5.3.4: restores the header fields that FLR resets.
Result<void> QemuFunction::reset() {
    constexpr std::uint8_t capability_express = 0x10;
    constexpr std::uint32_t can_reset = 1U << 28;
    constexpr std::uint16_t initiate = 1U << 15;
    const Bdf address = function_.info.address;
    const auto found = find_capability(*machine_.config_, address, capability_express);
    if (!found || (config_.read32(*found + 4) & can_reset) == 0)
        return fail(ErrorCode::unsupported, "the function cannot be reset alone",
                    {"requester", address.requester()});
    const std::uint16_t control = config_.read16(*found + 8);
    config_.write16(*found + 8, control | initiate);
    for (unsigned index = 0; index != 6; ++index) {
        if (!function_.bars[index])
            continue;
        const std::uint64_t start = function_.bars[index]->value();
        const unsigned offset = pci::first_bar + 4 * index;
        config_.write32(offset, static_cast<std::uint32_t>(start));
        if (function_.info.bars[index].kind == BarKind::memory64)
            config_.write32(offset + 4, static_cast<std::uint32_t>(start >> 32));
    }
    config_.write16(pci::command, pci::command_memory | pci::command_no_intx);
    machine_.qtest_.drain();
    return machine_.health();
}

} // namespace moat::machine::qemu
