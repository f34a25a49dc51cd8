// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes lines of kernel logs, hypervisors, emulators and tracefs into events: the facts as their
// writer printed them. Counts the lines that name an IOMMU and are unknown. Explains nothing:
// records of faults go to diagnose.hpp. `moat explain` and log followers call it.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::fault {

/// The program that wrote a line.
enum class Origin : std::uint8_t {
    intel,        ///< Linux's VT-d driver
    amd,          ///< Linux's AMD-Vi driver
    smmu_v2,      ///< Linux's arm-smmu driver, and vendors' copies of it
    smmu_v3,      ///< Linux's arm-smmu-v3 driver
    riscv,        ///< Linux's RISC-V IOMMU driver
    virtio_iommu, ///< Linux's virtio-iommu driver
    qemu,         ///< the emulator, on its standard error
    vfio,         ///< Linux's VFIO, or a program that called it
    tracepoint,   ///< tracefs
    kernel,       ///< another part of Linux
    xen,          ///< the hypervisor
    freebsd,      ///< FreeBSD's drivers
    openbsd,      ///< OpenBSD's drivers
    soc,          ///< Linux's driver of another IOMMU on a chip: `unit` names it
    swiotlb,      ///< Linux's bounce buffers
    dma_debug,    ///< Linux's checks of DMA API calls
    eeh,          ///< Linux's error handling on POWER
    dpdk,         ///< DPDK or SPDK
};

[[nodiscard]] constexpr std::string_view name(Origin origin) {
    constexpr std::array<std::string_view, 18> names = {
        "intel",   "amd",  "smmu-v2", "smmu-v3",   "riscv", "virtio-iommu",
        "qemu",    "vfio", "trace",   "kernel",    "xen",   "freebsd",
        "openbsd", "soc",  "swiotlb", "dma-debug", "eeh",   "dpdk"};
    return names[static_cast<std::size_t>(origin)];
}

/// A number of a line without a field of its own. `name` is static text.
struct NamedNumber {
    std::string_view name;
    std::uint64_t value = 0;

    friend bool operator==(const NamedNumber&, const NamedNumber&) = default;
};

/// The facts of one event, printed in one line or in several that belong together. Absent facts are
/// empty, never guessed.
struct LogEvent {
    enum class Kind : std::uint8_t {
        fault,           ///< the IOMMU refused an access or a request: `record`
        map_failure,     ///< a mapping was refused: `record.where`, `bytes`, `error`
        memory_limit,    ///< pinning exceeded RLIMIT_MEMLOCK: `bytes` is the limit
        device_refused,  ///< a device cannot be given to a program or virtual machine
        invalidation,    ///< the IOMMU, or a device, did not finish an invalidation
        unit_error,      ///< the IOMMU reported an error of itself or of its tables
        bounce_full,     ///< swiotlb had no room: `bytes`
        driver_error,    ///< a driver misused the DMA API
        isolated,        ///< a device was cut off from the machine (EEH)
        unit_refused,    ///< an IOMMU or one of its features is unusable
        suppressed,      ///< `record.suppressed` lines were not printed; not a fault
        detail,          ///< facts that belong to another event: registers, tables, a status
        device_name,     ///< names a device: `device`, `driver`, `text`
        reserved_region, ///< firmware or the kernel reserves `record.where`
        setting,         ///< a boot parameter, a default domain type, a feature: `text`
        kernel_version,  ///< `text`
        note,            ///< an understood line without facts of its own
        mapped,          ///< `mapping`, from a trace event
        unmapped,        ///< `mapping`, from a trace event
    };

    Kind kind = Kind::fault;
    Origin origin = Origin::kernel;
    /// The device, access, address, reason, PASID, domain, code and time. Of kinds other than
    /// `fault` as far as the line has them.
    Record record = {};
    /// The range and its direction; `device` is the label. Has a time, but no thread or stack.
    Mapping mapping = {};
    /// The size of a mapping or buffer, or a limit.
    std::optional<std::uint64_t> bytes = {};
    /// A positive errno.
    std::optional<int> error = {};
    /// Seconds since midnight, from a date before the line; `record.time_ns` is a monotonic clock.
    std::optional<std::uint32_t> second_of_day = {};
    /// The IOMMU that reported it ("dmar0", "1000000.iommu"), if the line names one.
    std::string unit = {};
    /// The driver's name in the line ("nvme"), if it has one.
    std::string driver = {};
    /// The device's name in the line ("0000:02:00.0", "8800000.sdhc"), if it has one.
    std::string device = {};
    /// The reason in the line's own words, if it has one; or what `kind` says.
    std::string text = {};
    /// Registers and table entries ("fsynr", "qw0"), in the line's order.
    std::vector<NamedNumber> numbers = {};
    /// The number of its first line, from 1, and that line.
    std::uint64_t line_number = 0;
    std::string raw = {};

    /// The first number of that name.
    [[nodiscard]] std::optional<std::uint64_t> number(std::string_view name) const {
        for (const NamedNumber& each : numbers)
            if (each.name == name)
                return each.value;
        return std::nullopt;
    }
};

[[nodiscard]] constexpr std::string_view name(LogEvent::Kind kind) {
    constexpr std::array<std::string_view, 19> names = {
        "fault",          "map-failure", "memory-limit", "device-refused",  "invalidation",
        "unit-error",     "bounce-full", "driver-error", "isolated",        "unit-refused",
        "suppressed",     "detail",      "device-name",  "reserved-region", "setting",
        "kernel-version", "note",        "mapped",       "unmapped"};
    return names[static_cast<std::size_t>(kind)];
}

/// Whether the event is a problem by itself. The other kinds explain one.
[[nodiscard]] constexpr bool is_problem(LogEvent::Kind kind) {
    return kind <= LogEvent::Kind::unit_refused;
}

/// What a decoder read. `first_unknown` is cut as lines are.
struct LogCounts {
    std::uint64_t lines = 0;
    std::uint64_t naming_an_iommu = 0;
    std::uint64_t unknown = 0; ///< of these, not understood
    std::uint64_t first_unknown_number = 0;
    std::string first_unknown = {};
};

class CleanLine;
struct Found;

/// Decodes a log line by line. Never fails: it counts unknown lines, and skips other programs'
/// output within a line. Time is linear in the text; memory is bounded by a few lines. Not
/// thread-safe.
class Decoder {
  public:
    using Sink = FunctionRef<void(const LogEvent&)>;

    /// Longer lines are cut.
    static constexpr std::size_t longest_line = 4096;

    /// Decodes one line, without its end. Passes complete results to `sink`: none, one, or two.
    void line(std::string_view line, Sink sink);

    /// Passes on an incomplete result: at the end of a log, or when a follower has seen no line for
    /// a while.
    void end(Sink sink);

    /// What it read so far.
    [[nodiscard]] const LogCounts& counts() const { return counts_; }

  private:
    /// An event that further lines may complete.
    struct Pending {
        LogEvent event = {};
        std::uint8_t message = 0; ///< which lines continue it
        bool waits = false;
        unsigned noise = 0; ///< unrelated lines since its last line
    };

    /// A line that was unknown, or ended within a pattern: the next one may continue it.
    struct Carry {
        std::string text;
        std::uint64_t number = 0;
        unsigned lines = 0;    ///< 0: none
        std::size_t facts = 0; ///< how many it gave by itself; 0: it was unknown
        bool names_iommu = false;
        bool breaks_softly = false; ///< nothing separates it from the next line
        bool is_whole = false;      ///< only a match with more facts is better
    };

    /// A line that may be of interest, without colours and quotes.
    void interesting(std::string_view line, bool marked, Sink sink);
    /// Return: whether the carried text and `line` are one event together.
    [[nodiscard]] bool joins(const CleanLine& line, Sink sink);
    /// Whether the carried line and `line`, which is lower case, gave more together.
    [[nodiscard]] bool reads_more(const Found& joined, std::string_view line) const;
    /// A line without the mark of a dialect. Return: whether it continues the pending event.
    [[nodiscard]] bool continues(const CleanLine& line, Sink sink);
    /// Takes back what the carried line gave: the joined line gives it again.
    void forget_carried();
    void give_up_carry();
    void take(const Found& found, std::string_view line, std::uint64_t number, Sink sink);
    void finish(Sink sink);

    Pending pending_;
    Pending before_carry_; ///< the pending event without the carried line
    Carry carry_;
    std::uint64_t suppressed_ = 0;
    LogCounts counts_;
};

} // namespace moat::fault
