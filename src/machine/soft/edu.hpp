// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of QEMU's teaching device: a factorial, and a DMA engine with a buffer of 4096 bytes.
// Source: QEMU's docs/specs/edu.rst, registers and numbers.
#pragma once

#include "machine/soft/data_phase.hpp"

#include <array>

namespace moat::machine::soft {

/// Like QEMU's, it reaches 28 bits of addresses by default. A transfer outside its buffer aborts
/// QEMU; here it has no effect.
class Edu final : public MovingModel {
  public:
    static constexpr std::uint64_t buffer_start = 0x40000;
    static constexpr std::uint64_t buffer_bytes = 4096;

    explicit Edu(std::uint64_t dma_mask = (std::uint64_t{1} << 28) - 1) : dma_mask_(dma_mask) {}

    [[nodiscard]] FunctionInfo info() const override;

    [[nodiscard]] unsigned vectors() const override { return 1; }

    [[nodiscard]] std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) override;
    void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) override;
    [[nodiscard]] bool step(BusMaster& bus) override;
    void reset() override;
    [[nodiscard]] bool uses(IovaRange range, BusMaster& bus) const override;

  private:
    enum Dma : std::uint8_t { source, destination, count, command };

    /// The transfer's address in the buffer, as an offset.
    [[nodiscard]] std::uint64_t own_address() const;
    /// The transfer's memory; nothing if it has none or leaves the buffer.
    [[nodiscard]] std::optional<Segment> memory() const;
    void transfer(BusMaster& bus);
    void raise(BusMaster& bus, std::uint32_t status);

    std::uint64_t dma_mask_;
    std::array<std::byte, buffer_bytes> buffer_{};
    std::uint32_t liveness_ = 0;
    std::uint32_t factorial_ = 0;
    std::uint32_t status_ = 0;
    std::uint32_t interrupts_ = 0;
    std::uint32_t to_raise_ = 0;         ///< by writing the register that raises interrupts
    std::array<std::uint64_t, 4> dma_{}; ///< the registers of 64 bits, in their order
};

} // namespace moat::machine::soft
