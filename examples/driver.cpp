// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver over VFIO: `moat bind 0000:03:00.0`, then `driver 0000:03:00.0`. The NVMe controller
// there reaches its submission queue and nothing else; what it tries beside it is printed.
#include "moat/core/text.hpp"
#include "moat/moat.hpp"

#include <iostream>

using namespace moat::literals;

static void drive(const char* address) {
    auto pci =
        moat::Container::open({.backend = moat::Backend::vfio,
                               .guard = 64_KiB,
                               .on_fault = [](const moat::Fault& fault) { std::cerr << fault; }})
            .value();
    auto nvme = pci.attach(address).value();
    auto queue = pci.allocate(4096).value();
    auto mapping = pci.map(queue, moat::to_device, "admin queue").value();
    auto registers = nvme.bar(0).value();
    registers.write64(0x28, mapping.iova()).value(); // NVMe 1.4, 3.1.9: ASQ
    std::cout << "the controller's queue is at 0x" << std::hex << mapping.iova() << '\n';
    pci.poll_faults().value();
}

int main(int argc, char** argv) {
    try {
        drive(argc > 1 ? argv[1] : "0000:03:00.0");
    } catch (const std::bad_expected_access<moat::Error>& failed) {
        std::cerr << "driver: " << failed.error() << '\n';
        return 1;
    }
}
