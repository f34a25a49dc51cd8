// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "qemu_function.hpp"

#include "platform/try.hpp"

#include <algorithm>
#include <atomic>

namespace moat::machine::qemu {

QemuFunction::QemuFunction(QemuMachine& machine, const PciFunction& function)
    : Function(function.info), machine_(machine), function_(function),
      config_(machine.qtest_, function.info.address) {}

QemuFunction::~QemuFunction() {
    set_bus_master(false);
    machine_.qtest_.drain();
    machine_.opened_.erase(info().address);
}

Result<std::unique_ptr<Registers>> QemuFunction::open_bar(unsigned index) {
    if (!function_.bars[index])
        return fail(ErrorCode::no_space, "there was no room for the BAR", {"bar", index});
    return std::make_unique<MemoryRegisters>(machine_.qtest_, *function_.bars[index],
                                             info().bars[index].size);
}

Result<unsigned> QemuFunction::find_capability(std::uint8_t id, const char* sentence) {
    unsigned found = 0;
    const auto matches = [&](unsigned offset, std::uint8_t each) {
        found = each == id ? offset : found;
        return each == id;
    };
    each_capability(config_, matches);
    if (found == 0)
        return fail(ErrorCode::unsupported, sentence, {"requester", info().address.requester()});
    return found;
}

/// PCI Local Bus 3.0, 6.8.2: the vector table lies in a BAR, 16 bytes per vector.
Result<unsigned> QemuFunction::enable_interrupts(unsigned wanted) {
    MOAT_LET(const unsigned found,
             find_capability(pci::capability_msix, "the function has no MSI-X"));
    const unsigned control = found + 2;
    const std::uint32_t table = config_.read32(found + 4);
    MOAT_LET(Registers* const registers, bar(table & 7));
    constexpr unsigned most = 1024; // words of 32 bits in the page
    const unsigned count = std::min({wanted, (config_.read16(control) & 0x7ffU) + 1, most});
    const std::uint64_t first = table & ~7U;
    if (count == 0 || first + 16ULL * count > registers->size().value())
        return fail(ErrorCode::io, "the table of MSI-X vectors does not fit its BAR",
                    {"offset", first}, {"vectors", count});
    MOAT_LET(const auto seen, machine_.map_interrupts(info().address));
    interrupts_ = seen.second;
    for (unsigned vector = 0; vector != count; ++vector) {
        const std::uint64_t entry = first + 16ULL * vector;
        const std::uint64_t message = seen.first.value() + 4ULL * vector;
        registers->write_halves(entry, message);
        registers->write32(entry + 8, 1);
        registers->write32(entry + 12, 0); // unmasked
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
    constexpr const char* cannot = "the function cannot be reset alone";
    MOAT_LET(const unsigned found, find_capability(capability_express, cannot));
    if ((config_.read32(found + 4) & can_reset) == 0)
        return fail(ErrorCode::unsupported, cannot, {"requester", info().address.requester()});
    config_.write16(found + 8, config_.read16(found + 8) | initiate);
    for (unsigned index = 0; index != 6; ++index) {
        if (!function_.bars[index])
            continue;
        const std::uint64_t start = function_.bars[index]->value();
        const unsigned offset = pci::first_bar + 4 * index;
        config_.write32(offset, static_cast<std::uint32_t>(start));
        if (info().bars[index].kind == BarKind::memory64)
            config_.write32(offset + 4, static_cast<std::uint32_t>(start >> 32));
    }
    config_.write16(pci::command, pci::command_memory | pci::command_no_intx);
    machine_.qtest_.drain();
    return machine_.health();
}

} // namespace moat::machine::qemu
