// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver on QEMU's model of its device, without hardware and without a guest. The driver passes
// edu 64 bytes too many; moat names the buffer. Registers: QEMU, docs/specs/edu.rst.
#include "moat/core/text.hpp"
#include "moat/moat.hpp"

#include <iostream>

static void drive() {
    auto pci =
        moat::Container::open({.backend = moat::Backend::qemu,
                               .dma_mask = (1U << 28) - 1, // edu's
                               .qemu = {.devices = {"edu,addr=4"}},
                               .on_fault = [](const moat::Fault& fault) { std::cout << fault; }})
            .value();
    auto edu = pci.attach("00:04.0").value();
    auto buffer = pci.allocate(4096).value();
    auto ring = pci.map(buffer, moat::from_device, "receive ring").value();
    auto registers = edu.bar(0).value();
    registers.write64(0x80, 0x40000).value();            // from edu's own memory
    registers.write64(0x88, ring.iova() + 2048).value(); // to the ring
    registers.write64(0x90, 2048 + 64).value();          // so many bytes
    registers.write64(0x98, 3).value();                  // go
    while ((registers.read64(0x98).value() & 1) != 0)
        ;
    pci.poll_faults().value();
}

int main() {
    try {
        drive();
    } catch (const std::bad_expected_access<moat::Error>& failed) {
        std::cerr << "qemu_driver: " << failed.error() << '\n';
        return 1;
    }
}
