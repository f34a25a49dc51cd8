// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Interrupts: VFIO_DEVICE_GET_IRQ_INFO and VFIO_DEVICE_SET_IRQS of one device.
#pragma once

#include "run/vfio_kernel/mappings.hpp"

#include <array>
#include <optional>
#include <span>
#include <vector>

namespace moat::run::vfio {

class Interrupts {
  public:
    Interrupts(Host& host, Device device) : host_(&host), device_(device) {}

    [[nodiscard]] Answer info(std::span<std::byte> argument) const;
    [[nodiscard]] Answer set(std::span<const std::byte> argument);

    /// Takes every eventfd away.
    void disable_all();

  private:
    using Kind = machine::soft::InterruptKind;

    /// vfio_irq_set, checked.
    struct Change {
        std::uint32_t data; ///< a VFIO_IRQ_SET_DATA_ flag
        unsigned start;
        unsigned count;
        std::span<const std::byte> values;

        [[nodiscard]] bool chosen(unsigned index) const; ///< not for eventfds
        [[nodiscard]] int descriptor(unsigned index) const;
    };

    [[nodiscard]] unsigned count(Kind kind) const;
    [[nodiscard]] int mask_intx(const Change& change, bool masked);
    [[nodiscard]] int trigger_intx(const Change& change);
    [[nodiscard]] int trigger_messages(Kind kind, const Change& change);
    [[nodiscard]] int set_messages(Kind kind, const Change& change);
    [[nodiscard]] int trigger_single(Kind kind, const Change& change);
    [[nodiscard]] int bind(Kind kind, unsigned vector, int descriptor);
    void disable(Kind kind);

    [[nodiscard]] std::vector<bool>& bound(Kind kind) {
        return bound_[static_cast<std::size_t>(kind)];
    }

    Host* host_;
    Device device_;
    /// Which of INTx, MSI and MSI-X is on.
    std::optional<Kind> mode_ = {};
    unsigned messages_ = 0; ///< of MSI: as many as were asked for when it was turned on
    /// Vectors that have an eventfd.
    std::array<std::vector<bool>, machine::soft::Face::interrupt_kinds> bound_ = {};
};

} // namespace moat::run::vfio
