// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Groups the events of a log: a thousand lines about one device and one cause are one LogGroup.
// Judges nothing (known_cause.hpp). `moat explain` feeds it event by event.
#pragma once

#include "moat/fault/decode.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace moat::fault {

/// Addresses at equal distances: `first`, `first + stride`, ..., `last`.
struct AddressRun {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    std::uint64_t stride = 0; ///< 0 for one address
    std::uint64_t count = 0;

    friend bool operator==(const AddressRun&, const AddressRun&) = default;
};

/// The distinct addresses of a group, the first `most` of them; counts the others.
class AddressSet {
  public:
    static constexpr std::size_t most = 4096;

    void add(std::uint64_t address);

    /// In ascending order. Two addresses form no run; three at one distance do.
    [[nodiscard]] std::vector<AddressRun> runs() const;

    [[nodiscard]] const std::set<std::uint64_t>& kept() const { return kept_; }

    /// How often an address came that is not kept.
    [[nodiscard]] std::uint64_t left_out() const { return left_out_; }

  private:
    std::set<std::uint64_t> kept_;
    std::uint64_t left_out_ = 0;
};

/// The events of one device, reported by one unit, for one reason.
struct LogGroup {
    LogEvent first = {};
    std::uint64_t count = 0;
    /// Lines that the kernel did not print, where only this group can have caused them.
    std::uint64_t suppressed = 0;
    /// Of the first and the last event that has a time.
    std::optional<std::uint64_t> begin_ns = {};
    std::optional<std::uint64_t> end_ns = {};
    AddressSet addresses = {};
};

/// Collects the groups of a log. Memory is bounded: later events of further groups are counted.
class LogGroups {
  public:
    static constexpr std::size_t most = 4096;

    /// Adds a problem or a number of suppressed lines; skips other events.
    void add(const LogEvent& event);

    /// In the order of their first events.
    [[nodiscard]] const std::vector<LogGroup>& all() const { return groups_; }

    /// Suppressed lines of nobody in particular.
    [[nodiscard]] std::uint64_t suppressed() const { return suppressed_; }

    /// Events that found no room.
    [[nodiscard]] std::uint64_t left_out() const { return left_out_; }

  private:
    void add_problem(const LogEvent& event);
    void add_suppressed(std::uint64_t lines);

    std::vector<LogGroup> groups_;
    std::unordered_map<std::string, std::size_t> index_;
    /// The groups with events since the last number of suppressed lines.
    std::set<std::size_t> active_;
    std::uint64_t suppressed_ = 0;
    std::uint64_t left_out_ = 0;
};

/// The PCI function of an event: as its record has it, or from its device's name. `segment` 0 and
/// no segment are the same function.
[[nodiscard]] std::optional<Source> pci_function(const LogEvent& event);

/// "0000:04:00.0" and "04:00.0" as a function; nothing for other text.
[[nodiscard]] std::optional<Source> parse_pci_function(std::string_view text);

} // namespace moat::fault
