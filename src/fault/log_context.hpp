// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a log, or a host, says beside its faults: the names of devices, what lies at physical
// addresses, and what happened before. Judges nothing (known_cause.hpp).
#pragma once

#include "moat/fault/decode.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::fault {

/// What is known of a PCI function. Unknown facts are 0 or empty.
struct DeviceFacts {
    std::string driver = {};
    std::string description = {}; ///< lspci's words
    std::uint16_t vendor = 0;
    std::uint16_t product = 0;
    std::uint16_t pci_class = 0; ///< class and subclass: 0x0108 for NVMe
    std::string domain = {};     ///< a VMD's PCI domain, whose devices send with its requester ID
};

/// Something that the log saw happen, which makes a later fault likely.
enum class Milestone : std::uint8_t {
    resumed,         ///< the machine woke up from sleep
    copied_tables,   ///< the kernel took the IOMMU's tables over from a crashed one
    link_lost,       ///< a device was removed, or its link went down
    controller_died, ///< a host controller stopped answering
    reset,           ///< a device was reset
    discarded,       ///< a disk discarded blocks
    foreign_module,  ///< a module from outside the kernel was loaded
};

/// Physical addresses with one use. Both ends are included.
struct PhysicalRegion {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    std::string what = {}; ///< "System RAM", "an RMRR", "a BAR of 0000:03:00.0"
};

class LogContext {
  public:
    /// More devices and regions are not kept.
    static constexpr std::size_t most = 4096;

    /// Reads a line of a kernel log, of `lspci -nn` (or -nnk), or of /proc/iomem; skips others.
    void line(std::string_view line);

    /// Reads a decoded event that names a device or reserves addresses; skips others.
    void event(const LogEvent& event);

    void add(PhysicalRegion region);

    /// The facts of a function; creates them, within `most`.
    [[nodiscard]] DeviceFacts* add_device(const Source& function);

    /// Null if nothing is known.
    [[nodiscard]] const DeviceFacts* device(const Source& function) const;

    /// Whether a listing of devices was read, so that an unknown function does not exist.
    [[nodiscard]] bool lists_devices() const { return lists_devices_; }

    /// The PCI function of an event: the one that it names, or the one whose requester ID its
    /// StreamID, device_id or endpoint contains, as the log or a listing shows.
    [[nodiscard]] std::optional<Source> function_of(const LogEvent& event) const;

    /// Known functions of the same segment and bus, without `function` itself.
    [[nodiscard]] std::vector<Source> neighbours(const Source& function) const;

    [[nodiscard]] bool saw(Milestone milestone) const {
        return (milestones_ >> static_cast<unsigned>(milestone) & 1U) != 0;
    }

    /// What a physical address is: the smallest region around it, or empty.
    [[nodiscard]] std::string at(std::uint64_t address) const;

  private:
    [[nodiscard]] bool lspci_line(std::string_view line);
    [[nodiscard]] bool iomem_line(std::string_view line);
    void kernel_line(std::string_view line);
    void learn_stream(const LogEvent& event);

    std::map<std::uint32_t, DeviceFacts> devices_; ///< by segment and requester ID
    std::vector<PhysicalRegion> regions_;
    DeviceFacts* listed_ = nullptr; ///< lspci's indented lines belong to it
    /// By unit: the first StreamID of a root complex, and its segment.
    std::map<std::string, std::pair<std::uint32_t, std::uint16_t>> streams_;
    unsigned milestones_ = 0;
    bool lists_devices_ = false;
};

} // namespace moat::fault
