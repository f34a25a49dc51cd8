// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Record: what an IOMMU, in hardware or software, reports about one refused access. IOMMUs and log
// decoders create it; diagnose.hpp finds the mapping.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/range.hpp"
#include "moat/core/text.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>

namespace moat::fault {

/// The kind of access.
enum class Access : std::uint8_t { unknown, read, write, execute };

[[nodiscard]] constexpr std::string_view name(Access access) {
    constexpr std::array<std::string_view, 4> names = {"unknown", "read", "write", "execute"};
    return names[static_cast<std::size_t>(access)];
}

/// The origin of an access: a PCI function, or a number that the IOMMU's firmware tables explain.
/// Trivially copyable.
class Source {
  public:
    enum class Kind : std::uint8_t {
        unknown,   ///< not reported
        pci,       ///< a requester ID, and a segment if it is reported
        stream,    ///< an Arm StreamID
        endpoint,  ///< a virtio-iommu endpoint
        device_id, ///< a RISC-V device_id
    };

    constexpr Source() = default;

    /// A PCI function; not every report has a segment. `device` < 32, `function` < 8.
    [[nodiscard]] static constexpr Source pci(unsigned bus, unsigned device, unsigned function,
                                              std::optional<std::uint16_t> segment = std::nullopt) {
        MOAT_CHECK(bus < 256 && device < 32 && function < 8, "a PCI function's numbers");
        Source source(Kind::pci, bus << 8 | device << 3 | function);
        source.segment_ = segment;
        return source;
    }

    /// The requester ID: bus 15..8, device 7..3, function 2..0.
    [[nodiscard]] static constexpr Source
    requester(std::uint16_t id, std::optional<std::uint16_t> segment = std::nullopt) {
        return pci(id >> 8, id >> 3 & 0x1fU, id & 7U, segment);
    }

    [[nodiscard]] static constexpr Source stream(std::uint32_t id) {
        return Source(Kind::stream, id);
    }

    [[nodiscard]] static constexpr Source endpoint(std::uint32_t id) {
        return Source(Kind::endpoint, id);
    }

    [[nodiscard]] static constexpr Source device_id(std::uint32_t id) {
        return Source(Kind::device_id, id);
    }

    [[nodiscard]] constexpr Kind kind() const { return kind_; }

    /// The requester ID of a PCI function, otherwise the number itself; 0 if unknown.
    [[nodiscard]] constexpr std::uint32_t id() const { return id_; }

    [[nodiscard]] constexpr std::optional<std::uint16_t> segment() const { return segment_; }

    /// Of a PCI function only.
    [[nodiscard]] constexpr unsigned bus() const { return pci_bits(8, 0xff); }

    [[nodiscard]] constexpr unsigned device() const { return pci_bits(3, 0x1f); }

    [[nodiscard]] constexpr unsigned function() const { return pci_bits(0, 7); }

    friend constexpr bool operator==(const Source&, const Source&) = default;

  private:
    constexpr Source(Kind kind, std::uint32_t id) : id_(id), kind_(kind) {}

    [[nodiscard]] constexpr unsigned pci_bits(unsigned low, unsigned mask) const {
        MOAT_CHECK(kind_ == Kind::pci, "only a PCI function has bus, device and function");
        return id_ >> low & mask;
    }

    std::uint32_t id_ = 0;
    std::optional<std::uint16_t> segment_;
    Kind kind_ = Kind::unknown;
};

/// How precise `Record::where` is.
enum class Precision : std::uint8_t {
    none,  ///< no address: the report is about the device or the IOMMU
    exact, ///< exactly the bytes of the access
    start, ///< the first byte; the length is unknown (`where` has one byte)
    page,  ///< the access lies within these bytes (VT-d reports pages)
};

/// The reason for the refusal. `Record::code` has the hardware's number.
enum class Reason : std::uint8_t {
    unknown,
    not_present,     ///< no leaf translates the address
    permission,      ///< a leaf forbids this access; or is absent (VT-d does not distinguish)
    address_size,    ///< beyond the reach of the device, the tables or the IOMMU
    not_attached,    ///< the root, context, device-table or stream-table entry is absent or invalid
    blocked,         ///< the device's domain refuses everything
    pasid,           ///< the PASID or its table is absent or invalid
    malformed_table, ///< reserved bits or impossible entries in the IOMMU's own tables
    table_access,    ///< the IOMMU could not read or write its own tables
    bad_request,     ///< a request of a kind that this device may not make
    out_of_bounds,   ///< translated, but outside the buffer's bounds (byte-precise checks)
    interrupt,       ///< an interrupt message that the IOMMU refused; the address is an index
    invalidation,    ///< the device did not answer an invalidation of its cache
    hardware,        ///< an error of the IOMMU, or of memory behind it
    events_lost,     ///< faults were not recorded; `suppressed` is their number if known
};

[[nodiscard]] constexpr std::string_view name(Reason reason) {
    constexpr std::array<std::string_view, 15> names = {
        "unknown",       "not-present", "permission",      "address-size", "not-attached",
        "blocked",       "pasid",       "malformed-table", "table-access", "bad-request",
        "out-of-bounds", "interrupt",   "invalidation",    "hardware",     "events-lost"};
    return names[static_cast<std::size_t>(reason)];
}

/// One refused access. Trivially copyable; does not refer to its log or queue.
struct Record {
    Source source = {};
    Access access = Access::unknown;
    Precision precision = Precision::none;
    Reason reason = Reason::unknown;
    /// Not empty, unless `precision` is none; a record that violates this has no address.
    IovaRange where = {};
    /// The IOMMU's number of the domain, if it is reported.
    std::optional<std::uint32_t> domain = {};
    std::optional<std::uint32_t> pasid = {};
    /// The hardware's code or flags: VT-d's fault reason, AMD's flags, an SMMU's event number or
    /// FSR, RISC-V's cause.
    std::optional<std::uint64_t> code = {};
    /// How many faults were lost or suppressed just before this one.
    std::uint64_t suppressed = 0;
    /// Nanoseconds of the reporter's monotonic clock.
    std::optional<std::uint64_t> time_ns = {};

    friend constexpr bool operator==(const Record&, const Record&) = default;
};

/// A record with known bytes; the caller fills in the rest.
[[nodiscard]] constexpr Record exact_record(Source source, Access access, IovaRange bytes,
                                            Reason reason) {
    return {.source = source,
            .access = access,
            .precision = Precision::exact,
            .reason = reason,
            .where = bytes};
}

namespace detail {

/// `value` in hexadecimal, at least `width` digits, without "0x".
[[nodiscard]] inline std::string padded_hex(std::uint64_t value, std::size_t width) {
    std::string digits = hexadecimal(value).substr(2);
    return digits.size() < width ? std::string(width - digits.size(), '0') + digits : digits;
}

} // namespace detail

/// "0000:02:00.0", "02:00.0" without a segment, "StreamID 0x10", "endpoint 16".
[[nodiscard]] inline std::string to_string(const Source& source) {
    switch (source.kind()) {
    case Source::Kind::pci: {
        std::string text = source.segment() ? detail::padded_hex(*source.segment(), 4) + ":" : "";
        text += detail::padded_hex(source.bus(), 2) + ":" + detail::padded_hex(source.device(), 2);
        return text + "." + std::to_string(source.function());
    }
    case Source::Kind::stream:
        return "StreamID " + hexadecimal(source.id());
    case Source::Kind::endpoint:
        return "endpoint " + std::to_string(source.id());
    case Source::Kind::device_id:
        return "device_id " + hexadecimal(source.id());
    case Source::Kind::unknown:
        break;
    }
    return "unknown device";
}

/// "00:01.0: write of page 0x1001000: permission (code 0x5)"
[[nodiscard]] inline std::string to_string(const Record& record) {
    std::string text = to_string(record.source) + ": ";
    text += record.access == Access::unknown ? "access" : std::string(name(record.access));
    const std::string start = record.where.empty() ? "" : hexadecimal(record.where.start().value());
    if (record.precision == Precision::exact)
        text += " of " + to_string(record.where.size()) + " at " + start;
    else if (record.precision == Precision::start)
        text += " at " + start;
    else if (record.precision == Precision::page)
        text += " of page " + start;
    text += ": " + std::string(name(record.reason));
    if (record.code)
        text += " (code " + hexadecimal(*record.code) + ")";
    if (record.domain)
        text += ", domain " + hexadecimal(*record.domain);
    if (record.pasid)
        text += ", PASID " + hexadecimal(*record.pasid);
    if (record.suppressed != 0)
        text += ", " + std::to_string(record.suppressed) + " suppressed before";
    return text;
}

inline std::ostream& operator<<(std::ostream& out, const Source& source) {
    return out << to_string(source);
}

inline std::ostream& operator<<(std::ostream& out, const Record& record) {
    return out << to_string(record);
}

} // namespace moat::fault
