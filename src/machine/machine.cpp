// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/machine.hpp"

namespace moat::machine {

void each_capability(Registers& config, FunctionRef<bool(unsigned, std::uint8_t)> visit) {
    if ((config.read16(pci::status) & pci::status_capabilities) == 0)
        return;
    unsigned at = config.read8(pci::capabilities) & 0xfcU;
    // 192 bytes of at least 4 each.
    for (unsigned seen = 0; at >= 0x40 && seen != 48; ++seen) {
        const std::uint16_t head = config.read16(at);
        if (visit(at, static_cast<std::uint8_t>(head)))
            return;
        at = head >> 8 & 0xfcU;
    }
}

unsigned find_extended_capability(Registers& config, unsigned id) {
    if (config.size() < ByteCount(4096))
        return 0;
    unsigned at = pci::first_extended;
    // 3840 bytes of at least 4 each.
    for (unsigned seen = 0; at >= pci::first_extended && seen != 960; ++seen) {
        const std::uint32_t head = config.read32(at);
        if (head == 0 || head == ~0U)
            return 0;
        if ((head & 0xffff) == id)
            return at;
        at = head >> 20 & 0xffcU;
    }
    return 0;
}

Result<Registers*> Function::bar(unsigned index) {
    if (index >= bars_.size() || info_.bars[index].kind == BarKind::absent)
        return fail(ErrorCode::not_found, "the function has no such BAR", {"bar", index});
    if (info_.bars[index].kind == BarKind::ports)
        return fail(ErrorCode::unsupported, "the BAR decodes ports", {"bar", index});
    if (!bars_[index]) {
        MOAT_LET(bars_[index], open_bar(index));
    }
    return bars_[index].get();
}

void Function::set_bus_master(bool allowed) {
    const std::uint16_t command = config().read16(pci::command);
    config().write16(pci::command,
                     static_cast<std::uint16_t>(allowed ? command | pci::command_master
                                                        : command & ~pci::command_master));
}

} // namespace moat::machine
