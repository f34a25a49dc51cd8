// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device in this process: the program plays its part. Two buffers lie side by side in memory; the
// device writes 64 bytes past the first. moat stops the write and names the buffer.
#include "moat/moat.hpp"

#include <array>
#include <iostream>
#include <vector>

alignas(4096) static std::array<std::byte, 2 * 4096> memory;

int main() {
    auto pci = moat::Container::open({.on_fault = [](const moat::Fault& fault) {
                   std::cout << fault;
               }}).value();
    auto nic = pci.attach("0000:00:03.0").value();
    const auto packet = std::span(memory).first(4096);
    const auto secret = std::span(memory).last(4096);
    auto received = pci.map(packet, moat::from_device, "receive ring").value();
    auto other = pci.map(secret, moat::bidirectional, "descriptors").value();

    const auto written = nic.write(received.iova(), std::vector(4160, std::byte{0xee}));
    std::cout << "the neighbour's first byte: " << std::to_integer<int>(secret[0]) << '\n';
    return !written && packet.back() == std::byte{0xee} ? 0 : 1;
}
