// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The transfer of one command's data between a device and memory, and the ways in which a device
// can get it wrong on request. The models know the commands.
#pragma once

#include "machine/soft/device_model.hpp"
#include "machine/soft/occasions.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moat::machine::soft {

/// What a device does wrong. It reports success nevertheless, except with wrong_status.
enum class Misdeed : std::uint8_t {
    none,
    overrun,                ///< continues past the end of the last segment
    underrun,               ///< starts before the first segment
    write_after_completion, ///< writes the first segment again, after completion
    stale_address,          ///< uses the addresses of the previous command
    read_only_violated,     ///< writes a segment that it should read
    wrong_length,           ///< omits the end of the data
    wrong_status,           ///< reports an error after success, and success after an error
    truncated_address,      ///< uses the lower 32 bits of addresses
    data_mixed_up,          ///< exchanges the start and the end of data that it writes
};

inline constexpr std::size_t misdeed_count = 10;

/// As commands take it: "overrun", "late".
[[nodiscard]] constexpr std::string_view name(Misdeed misdeed) {
    constexpr std::array<std::string_view, misdeed_count> names = {
        "none",      "overrun",        "underrun",     "late",      "stale",
        "read-only", "short-transfer", "wrong-status", "truncated", "wrong-data"};
    return names[static_cast<std::size_t>(misdeed)];
}

struct Misbehaviour {
    Misdeed misdeed = Misdeed::none;
    /// How far it strays, or how much it writes or omits.
    std::uint64_t bytes = 64;
    Occasions when = {}; ///< of the commands with data
    /// How long after its completion a write comes.
    std::chrono::nanoseconds delay{0};
};

/// A range of memory as the device was given it; `bytes` is not 0.
struct Segment {
    Iova start;
    std::uint64_t bytes = 0;
};

/// The byte that a device writes outside its buffers, for tests to find.
inline constexpr std::byte stray_byte{0xa5};

/// Transfers data, correctly or as asked. Strays at most `most_stray` bytes. Used by one thread.
class DataPhase {
  public:
    static constexpr std::uint64_t most_stray = std::uint64_t{1} << 20;

    /// Applies from the next command on.
    void misbehave(Misbehaviour how) {
        how_ = how;
        commands_ = 0;
    }

    /// How many misdeeds happened: 0 if no command had data for one.
    [[nodiscard]] std::uint64_t misdeeds() const { return misdeeds_; }

    /// The segments together are at least as long as `data`. Return: whether the requested data was
    /// transferred, as the device reports it.
    [[nodiscard]] bool to_memory(BusMaster& bus, std::span<const Segment> segments,
                                 std::span<const std::byte> data);
    [[nodiscard]] bool from_memory(BusMaster& bus, std::span<const Segment> segments,
                                   std::span<std::byte> data);

    /// Does what was postponed until after the completion, if it is due. Return: whether it did.
    [[nodiscard]] bool after_completion(BusMaster& bus);

    /// Whether after_completion() will do something.
    [[nodiscard]] bool pending() const { return late_.has_value(); }

    void reset();

  private:
    enum class Way : std::uint8_t { to_memory, from_memory };

    struct LateWrite {
        Segment where;
        std::chrono::nanoseconds due{0};
    };

    /// Begins a command. Return: the segments to use instead of the given ones; valid until the
    /// next command.
    [[nodiscard]] std::span<const Segment> begin(BusMaster& bus, std::span<const Segment> told);
    void truncate(std::span<Segment> segments);
    /// Calls access(segment, offset of its data), which returns how many bytes it moved, until
    /// `size` bytes or a refusal. Return: to_memory's.
    [[nodiscard]] bool transfer(BusMaster& bus, std::span<const Segment> segments,
                                std::uint64_t size, Way way,
                                FunctionRef<ByteCount(const Segment&, std::uint64_t)> access);
    /// The data to write to memory.
    [[nodiscard]] std::span<const std::byte> mixed_up(std::span<const std::byte> data);
    /// How many of `size` bytes are transferred.
    [[nodiscard]] std::uint64_t moved(std::uint64_t size);
    void stray(BusMaster& bus, Iova start, std::uint64_t bytes, Way way);
    void stray_around(BusMaster& bus, std::span<const Segment> segments, Way way);

    Misbehaviour how_ = {};
    std::uint64_t commands_ = 0;
    Misdeed misdeed_ = Misdeed::none; ///< of the current command
    std::vector<Segment> previous_;
    std::vector<std::byte> mixed_;
    std::optional<LateWrite> late_;
    std::uint64_t misdeeds_ = 0;
};

/// A model that moves data, and can do so wrongly.
class MovingModel : public DeviceModel {
  public:
    void misbehave(Misbehaviour how) { data_.misbehave(how); }

    [[nodiscard]] std::uint64_t misdeeds() const { return data_.misdeeds(); }

  protected:
    DataPhase data_;
};

} // namespace moat::machine::soft
