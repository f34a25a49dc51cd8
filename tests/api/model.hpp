// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of a copying device: the tests of moat.hpp drive it through its registers.
#pragma once

#include "moat/moat.hpp"

#include <array>
#include <cstddef>
#include <vector>

namespace moat::tests {

/// Registers of 8 bytes: 0x28 takes an address; 0x30 takes a number of bytes, and the device writes
/// as many 0xee to that address; 0x38 counts the writes that succeeded.
class Copier final : public DeviceModel {
  public:
    static constexpr std::size_t page = 4096;

    explicit Copier(bool has_memory = false) : has_memory_(has_memory) {}

    [[nodiscard]] std::uint64_t bar_bytes(unsigned index) const override {
        return index == 0 || (index == 2 && has_memory_) ? page : 0;
    }

    [[nodiscard]] std::span<std::byte> bar_memory(unsigned index) override {
        return index == 2 && has_memory_ ? std::span<std::byte>(memory) : std::span<std::byte>();
    }

    [[nodiscard]] unsigned vectors() const override { return 4; }

    [[nodiscard]] std::uint64_t read(unsigned /*bar*/, std::uint64_t offset,
                                     unsigned width) override {
        last_width = width;
        return offset == 0x38 ? done : 0;
    }

    void write(unsigned /*bar*/, std::uint64_t offset, unsigned width,
               std::uint64_t value) override {
        last_width = width;
        if (offset == 0x28)
            address = value;
        if (offset != 0x30)
            return;
        const std::vector<std::byte> data(value, std::byte{0xee});
        if (write_memory(address, data))
            ++done;
        (void)interrupt(1);
    }

    [[nodiscard]] Result<void> read_as_device(std::uint64_t iova, std::span<std::byte> into) {
        return read_memory(iova, into);
    }

    std::uint64_t address = 0;
    std::uint64_t done = 0;
    unsigned last_width = 0;
    alignas(page) std::array<std::byte, page> memory{};

  private:
    bool has_memory_;
};

} // namespace moat::tests
