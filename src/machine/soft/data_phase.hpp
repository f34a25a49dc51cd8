// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The data of one command on its way between a device and memory, and how a device can get that
// wrong on request. Where the data comes from, and which commands there are, the models know.
#pragma once

#include "machine/soft/device_model.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moat::machine::soft {

/// What a device does wrong. It reports success all the same.
enum class Misdeed : std::uint8_t {
    none,
    overrun,                ///< goes on past the end of the last segment
    underrun,               ///< begins before the first segment
    write_after_completion, ///< writes the first segment once more, after it said it was done
    stale_address,          ///< uses the addresses of the command before
    read_only_violated,     ///< writes what it was told to read
    wrong_length,           ///< leaves the end of the data out
};

[[nodiscard]] constexpr std::string_view name(Misdeed misdeed) {
    constexpr std::array<std::string_view, 7> names = {"none",          "overrun",
                                                       "underrun",      "write-after-completion",
                                                       "stale-address", "read-only-violated",
                                                       "wrong-length"};
    return names[static_cast<std::size_t>(misdeed)];
}

struct Misbehaviour {
    Misdeed misdeed = Misdeed::none;
    /// How far it strays, how much it writes or leaves out.
    std::uint64_t bytes = 64;
};

/// Bytes of memory as the device was told of them; `bytes` is not 0.
struct Segment {
    Iova start;
    std::uint64_t bytes = 0;
};

/// What a device writes where it has no business: to be found by tests.
inline constexpr std::byte stray_byte{0xa5};

/// Moves data, rightly or as asked. Strays at most `most_stray` bytes. Used by one thread.
class DataPhase {
  public:
    static constexpr std::uint64_t most_stray = std::uint64_t{1} << 20;

    /// From the next command on.
    void misbehave(Misbehaviour how) { how_ = how; }

    /// How many misdeeds happened: 0 where no command had data for one.
    [[nodiscard]] std::uint64_t misdeeds() const { return misdeeds_; }

    /// The segments together are as long as `data`. Return: whether what was asked for arrived;
    /// how a misdeed ends is not told.
    [[nodiscard]] bool to_memory(BusMaster& bus, std::span<const Segment> segments,
                                 std::span<const std::byte> data);
    [[nodiscard]] bool from_memory(BusMaster& bus, std::span<const Segment> segments,
                                   std::span<std::byte> data);

    /// What was left for after the completion. Return: whether there was anything.
    [[nodiscard]] bool after_completion(BusMaster& bus);

    void reset();

  private:
    enum class Way : std::uint8_t { to_memory, from_memory };

    /// The segments to use in place of those told; until the next command.
    [[nodiscard]] std::span<const Segment> chosen(std::span<const Segment> told);
    /// How much of `size` bytes of data is moved.
    [[nodiscard]] std::uint64_t moved(std::uint64_t size);
    void stray(BusMaster& bus, Iova start, std::uint64_t bytes, Way way);
    void stray_around(BusMaster& bus, std::span<const Segment> segments, Way way);

    Misbehaviour how_ = {};
    std::vector<Segment> previous_;
    std::optional<Segment> late_;
    std::uint64_t misdeeds_ = 0;
};

} // namespace moat::machine::soft
