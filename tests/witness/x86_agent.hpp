// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The agent: guest code that makes the accesses for an x86 witness, in the address space of the
// tables under test. x86_agent.cpp has the code; QEMU and KVM run it.
#pragma once

#include "moat/core/text.hpp"

#include "witness.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" {
extern const std::byte moat_x86_agent[];
extern const std::byte moat_x86_agent_long_mode[];
extern const std::byte moat_x86_agent_gdt[];
extern const std::byte moat_x86_agent_end[];
}

namespace moat::tests {

/// The agent's pages in guest memory, mapped to themselves: code, mailbox, probes, stack.
class X86Agent {
  public:
    static constexpr SupportPages pages = {.start = 0x1'0000,
                                           .physical = 0x1'0000,
                                           .bytes = 0x1'0000,
                                           .attributes = read_write | Attributes::execute};
    /// It writes a byte here when it is done.
    static constexpr std::uint16_t done_port = 0xe9;
    static constexpr char done_character = '\n';
    static constexpr std::uint64_t most_probes = 0xc00;

    /// `memory`: the guest's, from physical address 0 on.
    explicit X86Agent(std::byte* memory) : pages_(memory + pages.physical) {
        std::memcpy(pages_, moat_x86_agent,
                    static_cast<std::size_t>(moat_x86_agent_end - moat_x86_agent));
    }

    /// Its entry in long mode with paging on; a 64 KiB segment's offset 0 in real mode.
    static std::uint64_t long_mode_entry() { return address_of(moat_x86_agent_long_mode); }

    static std::uint64_t gdt() { return address_of(moat_x86_agent_gdt); }

    void prepare(PhysicalAddress root, std::uint64_t cr4, std::span<const Probe> probes) {
        if (probes.size() > most_probes)
            throw std::runtime_error("more probes than the agent has room for");
        const Mailbox mailbox = {root.value(), cr4, probes.size()};
        std::memcpy(pages_ + mailbox_offset, &mailbox, sizeof mailbox);
        for (std::size_t i = 0; i != probes.size(); ++i) {
            const Slot slot = {probes[i].address,
                               probes[i].access == Access::read ? asked_read : asked_write};
            std::memcpy(slot_at(i), &slot, sizeof slot);
        }
    }

    /// Whether a translation answered probe number `index`, rather than a page fault.
    [[nodiscard]] bool translated(std::size_t index) const {
        Slot slot;
        std::memcpy(&slot, slot_at(index), sizeof slot);
        if (slot.state != done && slot.state != page_fault)
            throw std::runtime_error("x86 at " + hexadecimal(slot.address) +
                                     ": neither an access nor its page fault, but state " +
                                     std::to_string(slot.state));
        return slot.state == done;
    }

    /// The agent's present probe, from its register RBX.
    static std::size_t index(std::uint64_t rbx) {
        return (rbx - pages.start - slots_offset) / sizeof(Slot);
    }

  private:
    // x86_agent.cpp uses the same offsets and states.
    static constexpr std::size_t mailbox_offset = 0x1000;
    static constexpr std::size_t slots_offset = 0x2000;
    static constexpr std::uint64_t asked_read = 0;
    static constexpr std::uint64_t asked_write = 1;
    static constexpr std::uint64_t done = 2;
    static constexpr std::uint64_t page_fault = 3;

    struct Mailbox {
        std::uint64_t cr3;
        std::uint64_t cr4;
        std::uint64_t count;
    };

    struct Slot {
        std::uint64_t address;
        std::uint64_t state;
    };

    static std::uint64_t address_of(const std::byte* label) {
        return pages.start + static_cast<std::uint64_t>(label - moat_x86_agent);
    }

    [[nodiscard]] std::byte* slot_at(std::size_t index) const {
        return pages_ + slots_offset + index * sizeof(Slot);
    }

    std::byte* pages_;
};

} // namespace moat::tests
