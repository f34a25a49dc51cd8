// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where an audit's buffers lie: against guards, with canaries around them, in a domain that has
// nothing else. What was unmapped rests, full of canaries, and is looked at again.
// Who touched what is judge.hpp's to say; audit.hpp's engine uses both.
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

/// A buffer that was placed. The memory of its pages around it is a red zone, full of canaries.
struct Placed {
    std::string_view label;
    Direction direction = Direction::bidirectional;
    IovaRange range = {};             ///< the buffer's bytes
    IovaRange pages = {};             ///< what is, or was, mapped for it
    std::span<std::byte> memory = {}; ///< of the pages
    /// Memory that is mapped nowhere, at the physical address that equals the pages' IOVA: what
    /// touches it goes past the IOMMU. Empty where there is none.
    std::span<std::byte> decoy = {};
    /// Of the memory's first page and of the decoy's; each page has others, in each lap.
    std::uint64_t canaries = 0;
    std::uint64_t decoy_canaries = 0;
    std::uint64_t case_number = 0;

    [[nodiscard]] std::size_t offset() const {
        return static_cast<std::size_t>((range.start() - pages.start()).value());
    }

    [[nodiscard]] std::span<std::byte> bytes() const {
        return memory.subspan(offset(), static_cast<std::size_t>(range.size().value()));
    }
};

/// How many bytes are not what was left there.
struct Changed {
    std::uint64_t before = 0; ///< the buffer
    std::uint64_t inside = 0;
    std::uint64_t after = 0;
    std::uint64_t decoy = 0;

    [[nodiscard]] std::uint64_t around() const { return before + after; }
};

struct ChangedAtRest {
    Placed placed;
    Changed changed;
};

/// Whether a device that goes past the IOMMU can be told: the machine names memory by what such a
/// device would send.
enum class Decoys : std::uint8_t { none, at_physical_addresses };

struct ArenaConfig {
    ByteCount guard{4096}; ///< rounded up to pages
    std::uint64_t seed = 0;
    Decoys decoys = Decoys::none;
    /// Of addresses, and of memory.
    ByteCount window{std::uint64_t{64} << 20};
    ByteCount memory{std::uint64_t{16} << 20};
};

/// How long a buffer lives.
enum class Life : std::uint8_t { driver, operation };

/// Used by one thread. Ends before its domain and its machine, and after the driver that uses it.
class Arena {
  public:
    static constexpr std::uint64_t page = 4096;

    /// Errors: out_of_range (the window, or a guard that does not fit it), no_memory.
    [[nodiscard]] static Result<Arena> create(machine::Machine& machine, machine::Domain& domain,
                                              const ArenaConfig& config);

    Arena(Arena&&) = default;
    Arena& operator=(Arena&&) = delete;
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() = default;

    /// Before an operation's buffers are placed: memory and addresses may be used again from here
    /// on, those of one operation never by each other.
    void begin_operation();

    /// A buffer whose first (left) or last byte (right) lies as near to a guard as its alignment
    /// allows, mapped for its direction; canaries are in and around it, but what a driver keeps is
    /// zeroed. Errors: no_space (longer than the arena), and the domain's.
    [[nodiscard]] Result<Placed> place(const Need& need, dma::Placement placement, Life life,
                                       std::uint64_t case_number);

    /// What is not as it was left around a buffer that lives, and of its decoy.
    [[nodiscard]] static Changed look(const Placed& placed);

    /// The same where one of the 64 bytes on either side changed; else nothing.
    [[nodiscard]] static Changed glance(const Placed& placed);

    /// Canaries again, around a buffer that lives.
    static void put_right_around(const Placed& placed);

    /// How many bytes at the buffer's end were never written since it was placed.
    [[nodiscard]] static std::uint64_t unwritten_at_end(const Placed& placed, ByteCount of);

    /// No device reaches it any more. Errors: the domain's.
    [[nodiscard]] Result<void> unmap(const Placed& placed);

    /// From now on it rests, full of canaries. It is unmapped, and `seen` is what `look` said.
    void lay_to_rest(Placed placed, const Changed& seen);

    /// The same of a buffer that nobody asks about any more: its driver ends.
    void give_back(const Placed& placed);

    /// Where the first 64 bytes of what was laid to rest last changed, looks at all of it and puts
    /// it right. What changed elsewhere is found when it gives way.
    void glance_at_last(std::vector<ChangedAtRest>& found);
    /// The same of every byte that rests.
    void look_at_all(std::vector<ChangedAtRest>& found);

    [[nodiscard]] const std::deque<Placed>& resting() const { return resting_; }

    /// Nothing is mapped or known to a device any more: for the next driver.
    void start_over();

    [[nodiscard]] ByteCount guard() const { return guard_; }

  private:
    Arena(machine::Domain& domain, const ArenaConfig& config, machine::SharedMemory memory,
          std::optional<machine::SharedMemory> decoys);

    [[nodiscard]] std::uint64_t canaries_of_memory(std::uint64_t offset, std::uint64_t lap) const;
    [[nodiscard]] std::uint64_t canaries_of_decoys(std::uint64_t offset) const;
    static void fill_up_to(std::uint64_t end, std::span<std::byte> memory, std::uint64_t& filled,
                           std::uint64_t canaries);
    static void look_at(Placed& placed, std::vector<ChangedAtRest>& found);

    machine::Domain* domain_;
    ByteCount guard_;
    std::uint64_t seed_;
    machine::SharedMemory memory_;
    std::optional<machine::SharedMemory> decoys_;
    std::uint64_t window_start_;
    std::uint64_t window_end_;
    std::uint64_t next_address_;
    std::uint64_t next_offset_ = 0;
    std::uint64_t kept_address_; ///< below lie buffers of the driver
    std::uint64_t kept_offset_ = 0;
    std::uint64_t highest_address_; ///< that was ever used
    std::uint64_t lap_ = 1;         ///< how often the memory was begun anew, more or less
    std::uint64_t ready_ = 0;       ///< how much of the memory has this lap's canaries
    std::uint64_t decoys_filled_ = 0;
    std::deque<Placed> resting_;
    std::vector<ChangedAtRest> changed_before_;
};

} // namespace moat::audit
