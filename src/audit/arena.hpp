// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arena: places an audit's buffers against guards, with canaries around them, in a domain of their
// own. Retired buffers, unmapped and filled with canaries, are inspected again. judge.hpp draws
// conclusions; audit.hpp's engine uses both.
#pragma once

#include "moat/core/range.hpp"
#include "moat/dma/options.hpp"

#include "audit/driver.hpp"

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moat::audit {

/// A placed buffer. The rest of its pages' memory is a red zone filled with canaries.
struct Placed {
    std::string_view label;
    Direction direction = Direction::bidirectional;
    IovaRange range = {}; ///< of the buffer
    IovaRange pages = {}; ///< mapped for it, now or before; with its guards if they are canaries
    std::span<std::byte> memory = {}; ///< of the pages
    /// Unmapped memory whose physical address equals the pages' IOVA: an access to it bypasses the
    /// IOMMU. Empty without decoys.
    std::span<std::byte> decoy = {};
    /// Seeds of the first page's canaries; each page differs, in each lap.
    std::uint64_t canaries = 0;
    std::uint64_t decoy_canaries = 0;
    std::uint64_t case_number = 0;

    [[nodiscard]] std::size_t offset() const {
        return static_cast<std::size_t>((range.start() - pages.start()).value());
    }

    /// The offset of the first byte after the buffer.
    [[nodiscard]] std::size_t end() const { return offset() + range.size().value(); }

    [[nodiscard]] std::span<std::byte> bytes() const {
        return memory.subspan(offset(), range.size().value());
    }
};

/// How many bytes differ from what the arena left there.
struct Changed {
    std::uint64_t before = 0; ///< the buffer
    std::uint64_t inside = 0;
    std::uint64_t after = 0;
    std::uint64_t decoy = 0;

    [[nodiscard]] std::uint64_t around() const { return before + after; }
};

/// A buffer, and what has changed of it.
struct Inspected {
    Placed placed;
    Changed changed = {};
};

/// Whether accesses that bypass the IOMMU can be detected: only where the machine's names of memory
/// are the addresses that such a device sends.
enum class Decoys : std::uint8_t {
    none,
    at_physical_addresses,
    /// Nothing translates: buffers lie at their own physical addresses, and their guards are
    /// Guards::canaries.
    in_place,
};

enum class Guards : std::uint8_t {
    unmapped, ///< an access to them is blocked and recorded
    canaries, ///< mapped memory, filled with canaries: where nothing is recorded
};

struct ArenaConfig {
    ByteCount guard{4096}; ///< rounded up to pages
    std::uint64_t seed = 0;
    Decoys decoys = Decoys::none;
    Guards guards = Guards::unmapped;
    /// Address space, and memory.
    ByteCount window{std::uint64_t{64} << 20};
    ByteCount memory{std::uint64_t{16} << 20};
};

/// How long a buffer lives.
enum class Life : std::uint8_t { driver, operation };

/// Used by one thread. Outlives the driver that uses it, but not its domain and machine.
class Arena {
  public:
    static constexpr std::uint64_t page = 4096;

    /// Errors: out_of_range (the window, or a guard that does not fit it), no_memory.
    [[nodiscard]] static Result<Arena> create(machine::Machine& machine, machine::Domain& domain,
                                              const ArenaConfig& config);

    /// Call before placing an operation's buffers: from here on memory and addresses may be reused,
    /// except among the buffers of one operation.
    void begin_operation();

    /// Places a buffer whose first (left) or last byte (right) is as close to a guard as its
    /// alignment allows, and maps it for its direction. Fills it and its surroundings with
    /// canaries; zeroes a driver's buffers instead. Errors: no_space (longer than the arena), and
    /// the domain's.
    [[nodiscard]] Result<Placed> place(const Need& need, dma::Placement placement, Life life,
                                       std::uint64_t case_number);

    /// Return: what has changed around a live buffer, and in its decoy.
    [[nodiscard]] static Changed look(const Placed& placed);

    /// The same for a buffer that is retired next, when its decoy is inspected: now only if one of
    /// the decoy's first 64 bytes in place of the buffer has changed.
    [[nodiscard]] static Changed look_at_ended(const Placed& placed);

    /// The same if one of the 64 bytes on either side has changed; otherwise nothing.
    [[nodiscard]] static Changed glance(const Placed& placed);

    /// Restores the canaries around a live buffer.
    static void restore_around(const Placed& placed);

    /// How many bytes at the buffer's end were not written since it was placed.
    [[nodiscard]] static std::uint64_t unwritten_at_end(const Placed& placed, ByteCount of);

    /// Unmaps the buffer's pages. Errors: the domain's.
    [[nodiscard]] Result<void> unmap(const Placed& placed);

    /// Fills an unmapped buffer with canaries and keeps it unused. `seen` is the result of `look`.
    void retire(Placed placed, const Changed& seen);

    /// The same for a buffer whose driver ends; it is not inspected again.
    void release(const Placed& placed);

    /// Checks the first 64 bytes of the buffer that was retired last; if they changed, inspects
    /// all of it and restores the canaries. Changes elsewhere are found when the buffer leaves.
    void glance_at_last(std::vector<Inspected>& found);
    /// Inspects every byte of every retired buffer.
    void look_at_all(std::vector<Inspected>& found);

    [[nodiscard]] const std::deque<Placed>& retired() const { return retired_; }

    /// Prepares for the next driver: nothing is mapped or known to a device.
    void start_over();

    [[nodiscard]] ByteCount guard() const { return guard_; }

  private:
    Arena(machine::Domain& domain, const ArenaConfig& config, machine::SharedMemory memory,
          std::optional<machine::SharedMemory> decoys);

    [[nodiscard]] Result<void> map(const Placed& placed, PhysicalAddress physical);
    [[nodiscard]] static Changed look_beside(const Placed& placed);
    [[nodiscard]] std::uint64_t canaries_at(std::uint64_t offset, std::uint64_t lap) const;
    void take_changed_before(std::vector<Inspected>& found);
    static void fill_up_to(std::uint64_t end, std::span<std::byte> memory, std::uint64_t& filled,
                           std::uint64_t canaries);
    static void look_at(Placed& placed, std::vector<Inspected>& found);

    machine::Domain* domain_;
    ByteCount guard_;
    bool in_place_;
    std::uint64_t margin_; ///< of a buffer's pages, for guards of canaries
    std::uint64_t seed_;
    machine::SharedMemory memory_;
    std::optional<machine::SharedMemory> decoys_;
    std::uint64_t window_start_;
    std::uint64_t window_end_;
    std::uint64_t next_address_;
    std::uint64_t next_offset_ = 0;
    std::uint64_t kept_address_; ///< buffers of the driver lie below
    std::uint64_t kept_offset_ = 0;
    std::uint64_t highest_address_; ///< ever used
    std::uint64_t lap_ = 1;         ///< how often memory was reused from its start, roughly
    std::uint64_t ready_ = 0;       ///< how much of the memory has this lap's canaries
    std::uint64_t decoys_filled_ = 0;
    std::deque<Placed> retired_;
    std::vector<Inspected> changed_before_;
};

} // namespace moat::audit
