// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A split virtqueue as the device uses it: takes the driver's buffers, and returns them.
// Source: Virtual I/O Device (VIRTIO) 1.1, 2.6.
#pragma once

#include "machine/soft/data_phase.hpp"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace moat::machine::soft {

/// The rings lie in memory with arbitrary contents: every index is checked, chains are bounded.
class VirtioQueue {
  public:
    static constexpr unsigned most_entries = 1024;

    /// As the driver sets it.
    struct Place {
        std::uint64_t descriptors = 0;
        std::uint64_t available = 0;
        std::uint64_t used = 0;
        unsigned entries = most_entries; ///< a power of two
    };

    explicit VirtioQueue(const Place& place) : place_(place) {}

    /// A buffer: what the device reads, then what it writes.
    struct Chain {
        std::uint32_t head = 0;
        std::vector<Segment> readable;
        std::vector<Segment> writable;
    };

    enum class Taken : std::uint8_t {
        chain,
        nothing,
        invalid_chain,
        too_many,    ///< available than the queue has entries
        unreachable, ///< memory of the queue
    };

    /// Takes the next buffer. `chain` has its head with invalid_chain, too.
    [[nodiscard]] Taken take(BusMaster& bus, Chain& chain);

    /// Returns a buffer with `bytes` written; the driver sees it after publish().
    void give_back(const Chain& chain, std::uint64_t bytes) {
        returned_.push_back({.head = chain.head, .bytes = static_cast<std::uint32_t>(bytes)});
    }

    enum class Published : std::uint8_t { quietly, with_interrupt, unreachable };

    [[nodiscard]] Published publish(BusMaster& bus);

    /// Whether take() will return something else than nothing.
    [[nodiscard]] bool has_more(BusMaster& bus);

    /// Whether an available buffer that take() has not returned names memory of `range`. Nothing
    /// changes, and `bus` is only read.
    [[nodiscard]] bool uses(IovaRange range, BusMaster& bus) const;

    /// Sets whether the driver should notify. A buffer may have been made available meanwhile:
    /// see has_more(). Return: false if the memory is out of reach.
    [[nodiscard]] bool want_notifications(BusMaster& bus, bool want);

  private:
    struct Descriptor {
        std::uint64_t address = 0;
        std::uint32_t length = 0;
        std::uint16_t flags = 0;
        std::uint16_t next = 0;
    };

    struct UsedEntry {
        std::uint32_t head = 0;
        std::uint32_t bytes = 0;
    };

    /// Reads the next available heads and the first descriptor of each.
    [[nodiscard]] Taken fetch(BusMaster& bus);
    [[nodiscard]] bool read_descriptors(BusMaster& bus, std::uint32_t first,
                                        std::span<Descriptor> into) const;
    [[nodiscard]] Taken read_chain(BusMaster& bus, Descriptor descriptor, Chain& chain) const;

    static constexpr unsigned most_heads = 32; ///< that are fetched at once

    Place place_;
    std::array<std::uint16_t, most_heads> heads_{};
    std::array<Descriptor, most_heads> first_descriptors_{};
    unsigned next_head_ = 0;
    unsigned fetched_heads_ = 0;
    std::uint16_t fetched_ = 0; ///< in all, modulo 2^16, as the driver counts
    std::uint16_t used_ = 0;    ///< in all, modulo 2^16
    std::vector<UsedEntry> returned_;
    bool notifies_ = true;
};

} // namespace moat::machine::soft
