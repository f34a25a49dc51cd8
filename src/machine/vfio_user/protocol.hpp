// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// vfio-user 0.1 as bytes: messages, capabilities, and which message may follow which. No operating
// system: channel.hpp sends and receives them.
// Source: the vfio-user protocol specification (libvfio-user, docs/vfio-user.rst).
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace moat::machine::vfio_user {

static_assert(std::endian::native == std::endian::little, "messages are little-endian");

enum class Command : std::uint16_t {
    version = 1,
    dma_map,
    dma_unmap,
    get_info,
    get_region_info,
    get_region_io_fds,
    get_irq_info,
    set_irqs,
    region_read,
    region_write,
    dma_read,  ///< of the server
    dma_write, ///< of the server
    reset,
    write_multi = 15,
    feature,
    migration_read,
    migration_write,
};

// Limits of both sides.
inline constexpr std::uint64_t most_transfer = std::uint64_t{1} << 20;
inline constexpr std::uint32_t most_message = most_transfer + 4096;
inline constexpr unsigned most_descriptors = 16; ///< QEMU 11.1 takes no larger number
inline constexpr unsigned most_maps = 65'535;
inline constexpr unsigned most_interrupts = 2048; ///< vectors of MSI-X

// Bits of Header::flags.
inline constexpr std::uint32_t type_mask = 0xf;
inline constexpr std::uint32_t reply_type = 1;
inline constexpr std::uint32_t no_reply = 1U << 4;
inline constexpr std::uint32_t error_bit = 1U << 5;

struct Header {
    std::uint16_t id = 0;
    Command command = {};
    std::uint32_t size = 0; ///< of the message with its header
    std::uint32_t flags = 0;
    std::uint32_t error = 0; ///< errno's number, of a reply with error_bit

    [[nodiscard]] bool is_reply() const { return (flags & type_mask) == reply_type; }

    [[nodiscard]] bool wants_reply() const { return (flags & no_reply) == 0; }

    [[nodiscard]] bool failed() const { return (flags & error_bit) != 0; }
};

struct Version {
    std::uint16_t major = 0;
    std::uint16_t minor = 1;
};

inline constexpr std::uint32_t map_readable = 1;
inline constexpr std::uint32_t map_writable = 2;

struct DmaMap {
    std::uint32_t argument_size = sizeof(DmaMap);
    std::uint32_t flags = 0;
    std::uint64_t offset = 0; ///< in the file of the descriptor
    std::uint64_t address = 0;
    std::uint64_t size = 0;
};

inline constexpr std::uint32_t unmap_all = 2;

struct DmaUnmap {
    std::uint32_t argument_size = sizeof(DmaUnmap);
    std::uint32_t flags = 0;
    std::uint64_t address = 0;
    std::uint64_t size = 0;
};

inline constexpr std::uint32_t device_resets = 1;
inline constexpr std::uint32_t device_is_pci = 2;

struct DeviceInfo {
    std::uint32_t argument_size = sizeof(DeviceInfo);
    std::uint32_t flags = 0;
    std::uint32_t regions = 0;
    std::uint32_t interrupts = 0;
};

inline constexpr std::uint32_t region_readable = 1;
inline constexpr std::uint32_t region_writable = 2;
inline constexpr std::uint32_t region_mappable = 4;
inline constexpr std::uint32_t region_has_capabilities = 8;

struct RegionInfo {
    std::uint32_t argument_size = sizeof(RegionInfo);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t capabilities = 0;
    std::uint64_t size = 0;
    std::uint64_t offset = 0;
};

inline constexpr std::uint32_t interrupt_eventfd = 1;
inline constexpr std::uint32_t interrupt_maskable = 2;
inline constexpr std::uint32_t interrupt_masks_itself = 4;
inline constexpr std::uint32_t interrupt_no_resize = 8;

struct IrqInfo {
    std::uint32_t argument_size = sizeof(IrqInfo);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t count = 0;
};

inline constexpr std::uint32_t irq_no_data = 1;
inline constexpr std::uint32_t irq_bools = 2;
inline constexpr std::uint32_t irq_eventfds = 4;
inline constexpr std::uint32_t irq_data = 7;
inline constexpr std::uint32_t irq_mask = 8;
inline constexpr std::uint32_t irq_unmask = 16;
inline constexpr std::uint32_t irq_trigger = 32;
inline constexpr std::uint32_t irq_action = 56;

struct SetIrqs {
    std::uint32_t argument_size = sizeof(SetIrqs);
    std::uint32_t flags = 0;
    std::uint32_t index = 0;
    std::uint32_t start = 0;
    std::uint32_t count = 0;
};

struct RegionAccess {
    std::uint64_t offset = 0;
    std::uint32_t region = 0;
    std::uint32_t count = 0;
};

struct DmaAccess {
    std::uint64_t address = 0;
    std::uint64_t count = 0;
};

struct MultiWrite {
    RegionAccess where = {};
    std::array<std::byte, 8> data = {};
};

template <class T>
concept Wire = std::is_trivially_copyable_v<T>;

template <Wire T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span(&value, 1));
}

template <Wire T>
void bytes_of(const T&& value) = delete; // they would dangle

/// The beginning of `bytes`; nothing if it is too short.
template <Wire T>
[[nodiscard]] std::optional<T> taken_from(std::span<const std::byte> bytes) {
    if (bytes.size() < sizeof(T))
        return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
}

/// What one side supports. Each side has the smaller one's as limits.
struct Capabilities {
    std::uint16_t minor = Version{}.minor; ///< a server's is at most its client's
    std::uint64_t descriptors = 1;         ///< that it receives in one message
    std::uint64_t transfer = most_transfer;
    std::uint64_t maps = most_maps;
    bool twin_socket = false;
    std::uint64_t twin_index = 0; ///< of the twin socket in a reply's descriptors
    bool write_multiple = false;
};

/// What both sides of moat support.
inline constexpr Capabilities own_capabilities = {
    .descriptors = most_descriptors, .twin_socket = true, .write_multiple = true};

enum class Role : std::uint8_t { client, server };

/// The body of a VERSION message of `role`: the version, and JSON with a NUL.
[[nodiscard]] std::vector<std::byte> encode_version(const Capabilities& offered, Role role);

/// Return: what the other side supports, with the protocol's defaults. Errors: unsupported (the
/// version), out_of_range.
[[nodiscard]] Result<Capabilities> decode_version(std::span<const std::byte> body);

// Requests of a client. Spans point into the message.
struct SetIrqsRequest {
    SetIrqs what = {};
    std::span<const std::byte> bools = {}; ///< `count` of them, with irq_bools
};

struct RegionRead {
    RegionAccess where = {};
};

struct RegionWrite {
    RegionAccess where = {};
    std::span<const std::byte> data = {};
};

struct WriteMulti {
    std::vector<MultiWrite> writes = {};
};

struct GetInfo {};

struct Reset {};

using Request = std::variant<DmaMap, DmaUnmap, GetInfo, RegionInfo, IrqInfo, SetIrqsRequest,
                             RegionRead, RegionWrite, WriteMulti, Reset>;

/// Checks everything that the message alone can show. Error: errno's number for the reply.
[[nodiscard]] std::expected<Request, int> decode_request(Command command,
                                                         std::span<const std::byte> body);

/// A request of a server: `data` of a DMA_WRITE. Error: errno's number for the reply.
struct DmaRequest {
    DmaAccess where = {};
    std::span<const std::byte> data = {};
};

[[nodiscard]] std::expected<DmaRequest, int> decode_dma(Command command,
                                                        std::span<const std::byte> body);

/// The order of messages as one side sees it. An error ends the connection.
class Dialogue {
  public:
    explicit Dialogue(Role role) : role_(role) {}

    /// Return: the header of a new request, whose reply is awaited unless `flags` has no_reply.
    [[nodiscard]] Header ask(Command command, std::uint32_t flags = 0);

    [[nodiscard]] static Header reply_to(const Header& request) {
        return {.id = request.id, .command = request.command, .flags = reply_type};
    }

    [[nodiscard]] static Header refuse(const Header& request, int error) {
        return {.id = request.id,
                .command = request.command,
                .flags = reply_type | error_bit,
                .error = static_cast<std::uint32_t>(error)};
    }

    /// Checks a header before its body is received. Errors: out_of_range.
    [[nodiscard]] static Result<void> check(const Header& header);

    /// Checks that a message may arrive now, and notes that it did. Errors: refused.
    [[nodiscard]] Result<void> arrived(const Header& header);

  private:
    const Role role_;
    std::uint16_t next_id_ = 1;
    bool has_version_ = false;
    std::map<std::uint16_t, Command> awaited_;
};

} // namespace moat::machine::vfio_user
