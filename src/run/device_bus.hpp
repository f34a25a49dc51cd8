// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceBus: the bus as one soft device sees it. Each access is checked against the program's maps
// and reaches the program's memory, or is refused and reported.
#pragma once

#include "machine/soft/face.hpp"
#include "run/address_space.hpp"
#include "run/client.hpp"
#include "run/findings.hpp"
#include "run/recorder.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace moat::run {

/// Not thread-safe. All references outlive it.
class DeviceBus final : public machine::soft::BusMaster {
  public:
    DeviceBus(const machine::soft::Face& face, std::string name, Client& client, Findings& findings,
              Recorder& recorder, Tally& tally);
    ~DeviceBus();
    DeviceBus(const DeviceBus&) = delete;
    DeviceBus& operator=(const DeviceBus&) = delete;

    /// nullptr: the device reaches nothing.
    void attach(AddressSpace* space) { space_ = space; }

    /// The program's call that the device acts upon.
    void tell(const fault::Event& event);

    /// `descriptor` is an eventfd of this process, which it owns from now on; -1: none.
    void set_interrupt(machine::soft::InterruptKind kind, unsigned vector, int descriptor);
    void signal(machine::soft::InterruptKind kind, unsigned vector);

    /// Counts the interrupts that were sent and never taken. Each counts once.
    void count_untaken();

    /// Reports that the program unmaps `range` if an uncompleted command uses it.
    void note_unmap(IovaRange range, const fault::Event& unmapped);

    /// Whether a vector of the kind has an eventfd.
    [[nodiscard]] bool is_armed(machine::soft::InterruptKind kind) const;

    /// A mistake of the program's driver that the model noticed.
    void remark(const machine::soft::Remark& remark);

    void mask(bool masked) { intx_masked_ = masked; }

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override;
    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override;
    void interrupt(unsigned vector) override;

  private:
    /// Copies `bytes` at the program's address `memory`, `offset` into the access. Return: how
    /// many.
    using Copy =
        FunctionRef<std::size_t(std::uint64_t memory, std::uint64_t offset, std::uint64_t bytes)>;

    class ReadingBus;

    struct Vector {
        int eventfd = -1;
        std::uint64_t sent = 0;
        bool taken = false; ///< at least once

        /// Whether the program has taken none of what was sent, as far as the eventfd shows.
        [[nodiscard]] bool is_untaken() const;
    };

    [[nodiscard]] ByteCount transfer(fault::Access access, Iova at, std::uint64_t bytes, Copy copy);
    void refuse(fault::Access access, Iova at, std::uint64_t bytes);
    [[nodiscard]] Circumstances circumstances() const;

    static constexpr std::size_t most_frames = 24;

    const machine::soft::Face& face_;
    std::string name_;
    Client& client_;
    Findings& findings_;
    Recorder& recorder_;
    Tally& tally_;
    AddressSpace* space_ = nullptr;
    std::array<std::vector<Vector>, machine::soft::Face::interrupt_kinds> vectors_;
    bool intx_masked_ = false;
    std::array<std::uintptr_t, most_frames> told_stack_{};
    fault::Event told_ = {};
};

} // namespace moat::run
