// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_user/protocol.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

namespace moat::machine::vfio_user {

static_assert(sizeof(Header) == 16 && sizeof(Version) == 4 && sizeof(DmaMap) == 32);
static_assert(sizeof(DmaUnmap) == 24 && sizeof(DeviceInfo) == 16 && sizeof(RegionInfo) == 32);
static_assert(sizeof(IrqInfo) == 16 && sizeof(SetIrqs) == 20 && sizeof(RegionAccess) == 16);
static_assert(sizeof(DmaAccess) == 16 && sizeof(MultiWrite) == 24);

namespace {

/// The text after `"name":`, without leading space; empty if there is no such name.
[[nodiscard]] std::string_view value_of(std::string_view json, std::string_view name) {
    const std::string quoted = '"' + std::string(name) + '"';
    const auto skip_space = [&] {
        json.remove_prefix(std::min(json.find_first_not_of(" \t\r\n"), json.size()));
    };
    const std::size_t found = json.find(quoted);
    if (found == std::string_view::npos)
        return {};
    json.remove_prefix(found + quoted.size());
    skip_space();
    if (!json.starts_with(':'))
        return {};
    json.remove_prefix(1);
    skip_space();
    return json;
}

/// Sets `value` if `json` has a number of this name. Return: false if it has something else.
[[nodiscard]] bool read_number(std::string_view json, std::string_view name, std::uint64_t& value) {
    const std::string_view text = value_of(json, name);
    return text.empty() ||
           std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc();
}

[[nodiscard]] bool has_overflow(std::uint64_t start, std::uint64_t size) {
    return size != 0 && start > ~std::uint64_t{0} - (size - 1);
}

using Decoded = std::expected<Request, int>;

[[nodiscard]] std::unexpected<int> invalid() {
    return std::unexpected(EINVAL);
}

[[nodiscard]] Decoded decode_info(std::span<const std::byte> body) {
    const auto info = taken_from<DeviceInfo>(body);
    if (!info || info->argument_size < sizeof(DeviceInfo))
        return invalid();
    return GetInfo{};
}

/// A request that is one structure.
template <class T>
[[nodiscard]] Decoded plain(std::span<const std::byte> body) {
    const auto value = taken_from<T>(body);
    if (!value || value->argument_size < sizeof(T))
        return invalid();
    return *value;
}

[[nodiscard]] Decoded decode_map(std::span<const std::byte> body) {
    constexpr std::uint32_t access = map_readable | map_writable;
    const auto map = taken_from<DmaMap>(body);
    if (!map || map->argument_size < sizeof(DmaMap) || map->size == 0 ||
        (map->flags & access) == 0 || has_overflow(map->address, map->size) ||
        has_overflow(map->offset, map->size) ||
        (map->address | map->size | map->offset) % 4096 != 0)
        return invalid();
    return *map;
}

[[nodiscard]] Decoded decode_unmap(std::span<const std::byte> body) {
    const auto unmap = taken_from<DmaUnmap>(body);
    if (!unmap || unmap->argument_size < sizeof(DmaUnmap) || (unmap->flags & ~unmap_all) != 0)
        return invalid();
    const bool all = unmap->flags == unmap_all;
    const bool is_empty = unmap->address == 0 && unmap->size == 0;
    if (all ? !is_empty : unmap->size == 0 || has_overflow(unmap->address, unmap->size))
        return invalid();
    return *unmap;
}

[[nodiscard]] Decoded decode_irqs(std::span<const std::byte> body) {
    const auto what = taken_from<SetIrqs>(body);
    if (!what || what->argument_size < sizeof(SetIrqs) ||
        !std::has_single_bit(what->flags & irq_data) ||
        !std::has_single_bit(what->flags & irq_action) ||
        (what->flags & ~(irq_data | irq_action)) != 0 || what->count > most_interrupts ||
        what->start > most_interrupts)
        return invalid();
    SetIrqsRequest request{.what = *what};
    if ((what->flags & irq_bools) != 0) {
        if (body.size() - sizeof(SetIrqs) < what->count)
            return invalid();
        request.bools = body.subspan(sizeof(SetIrqs), what->count);
    }
    return request;
}

[[nodiscard]] Decoded decode_region(Command command, std::span<const std::byte> body) {
    const auto where = taken_from<RegionAccess>(body);
    if (!where || where->count == 0 || has_overflow(where->offset, where->count))
        return invalid();
    if (where->count > most_transfer)
        return std::unexpected(E2BIG);
    if (command == Command::region_read)
        return RegionRead{*where};
    if (body.size() - sizeof(RegionAccess) != where->count)
        return invalid();
    return RegionWrite{*where, body.subspan(sizeof(RegionAccess))};
}

[[nodiscard]] Decoded decode_multi(std::span<const std::byte> body) {
    const auto count = taken_from<std::uint64_t>(body);
    if (!count || *count == 0 || *count > most_transfer / sizeof(MultiWrite) ||
        body.size() < sizeof(std::uint64_t) + *count * sizeof(MultiWrite))
        return invalid();
    WriteMulti multi;
    multi.writes.resize(*count);
    std::memcpy(multi.writes.data(), body.data() + sizeof(std::uint64_t),
                *count * sizeof(MultiWrite));
    const auto is_wrong = [](const MultiWrite& each) {
        return each.where.count == 0 || each.where.count > each.data.size() ||
               has_overflow(each.where.offset, each.where.count);
    };
    if (std::ranges::any_of(multi.writes, is_wrong))
        return invalid();
    return multi;
}

} // namespace

std::vector<std::byte> encode_version(const Capabilities& offered, Role role) {
    std::string json = R"({"capabilities":{"max_msg_fds":)" + std::to_string(offered.descriptors) +
                       R"(,"max_data_xfer_size":)" + std::to_string(offered.transfer) +
                       R"(,"max_dma_maps":)" + std::to_string(offered.maps) +
                       R"(,"pgsizes":4096,"write_multiple":)" +
                       (offered.write_multiple ? "true" : "false");
    if (offered.twin_socket)
        json +=
            R"(,"twin_socket":{"supported":true)" +
            (role == Role::server ? ",\"fd_index\":" + std::to_string(offered.twin_index) : "") +
            '}';
    json += "}}";
    std::vector<std::byte> body(sizeof(Version) + json.size() + 1);
    const Version version = {.minor = offered.minor};
    std::memcpy(body.data(), &version, sizeof version);
    std::memcpy(body.data() + sizeof version, json.c_str(), json.size() + 1);
    return body;
}

Result<Capabilities> decode_version(std::span<const std::byte> body) {
    const auto version = taken_from<Version>(body);
    if (!version)
        return fail(ErrorCode::out_of_range, "a version message is too short",
                    {"bytes", body.size()});
    if (version->major != 0)
        return fail(ErrorCode::unsupported, "moat has version 0.1 of vfio-user",
                    {"major", version->major}, {"minor", version->minor});
    body = body.subspan(sizeof(Version));
    std::string_view json(reinterpret_cast<const char*>(body.data()), body.size());
    if (!json.empty() && json.back() != '\0')
        return fail(ErrorCode::out_of_range, "the capabilities end without a NUL",
                    {"bytes", json.size()});
    json = json.substr(0, json.find('\0'));
    Capabilities capabilities = {.minor = version->minor};
    const std::string_view twin = value_of(json, "twin_socket");
    const std::string_view inside = twin.substr(0, twin.find('}'));
    if (!read_number(json, "max_msg_fds", capabilities.descriptors) ||
        !read_number(json, "max_data_xfer_size", capabilities.transfer) ||
        !read_number(json, "max_dma_maps", capabilities.maps) ||
        !read_number(inside, "fd_index", capabilities.twin_index))
        return fail(ErrorCode::out_of_range, "a capability is not a number");
    if (capabilities.transfer == 0 || capabilities.maps == 0)
        return fail(ErrorCode::out_of_range, "a capability is 0",
                    {"max_data_xfer_size", capabilities.transfer},
                    {"max_dma_maps", capabilities.maps});
    capabilities.twin_socket = value_of(inside, "supported").starts_with("true");
    capabilities.write_multiple = value_of(json, "write_multiple").starts_with("true");
    capabilities.descriptors = std::min<std::uint64_t>(capabilities.descriptors, most_descriptors);
    capabilities.transfer = std::min(capabilities.transfer, most_transfer);
    return capabilities;
}

std::expected<Request, int> decode_request(Command command, std::span<const std::byte> body) {
    switch (command) {
    case Command::dma_map:
        return decode_map(body);
    case Command::dma_unmap:
        return decode_unmap(body);
    case Command::get_info:
        return decode_info(body);
    case Command::get_region_info:
        return plain<RegionInfo>(body);
    case Command::get_irq_info:
        return plain<IrqInfo>(body);
    case Command::set_irqs:
        return decode_irqs(body);
    case Command::region_read:
    case Command::region_write:
        return decode_region(command, body);
    case Command::write_multi:
        return decode_multi(body);
    case Command::reset:
        return Reset{};
    default:
        return std::unexpected(ENOTSUP);
    }
}

std::expected<DmaRequest, int> decode_dma(Command command, std::span<const std::byte> body) {
    const auto where = taken_from<DmaAccess>(body);
    if (!where || where->count == 0 || has_overflow(where->address, where->count))
        return invalid();
    if (where->count > most_transfer)
        return std::unexpected(E2BIG);
    if (command == Command::dma_read)
        return DmaRequest{.where = *where};
    if (body.size() - sizeof(DmaAccess) != where->count)
        return invalid();
    return DmaRequest{.where = *where, .data = body.subspan(sizeof(DmaAccess))};
}

Header Dialogue::ask(Command command, std::uint32_t flags) {
    while (awaited_.contains(next_id_))
        ++next_id_;
    const Header header{.id = next_id_++, .command = command, .flags = flags};
    if (header.wants_reply())
        awaited_.emplace(header.id, command);
    return header;
}

Result<void> Dialogue::check(const Header& header) {
    if (header.size < sizeof(Header) || header.size > most_message)
        return fail(ErrorCode::out_of_range, "a message has an impossible size",
                    {"size", header.size}, {"most", most_message});
    if ((header.flags & type_mask) > reply_type)
        return fail(ErrorCode::out_of_range, "a message is neither a command nor a reply",
                    {"flags", header.flags});
    if (header.is_reply() && header.failed() && header.size != sizeof(Header))
        return fail(ErrorCode::out_of_range, "an error reply has a body", {"size", header.size});
    return {};
}

Result<void> Dialogue::arrived(const Header& header) {
    const auto command = static_cast<std::uint64_t>(header.command);
    if (header.is_reply()) {
        const auto found = awaited_.find(header.id);
        if (found == awaited_.end() || found->second != header.command)
            return fail(ErrorCode::refused, "a reply answers no request", {"id", header.id},
                        {"command", command});
        awaited_.erase(found);
        return {};
    }
    const bool is_dma = header.command == Command::dma_read || header.command == Command::dma_write;
    if (is_dma != (role_ == Role::client))
        return fail(ErrorCode::refused, "a command that this side cannot be sent",
                    {"command", command});
    const bool is_version = header.command == Command::version;
    if (role_ == Role::server && is_version == has_version_)
        return fail(ErrorCode::refused,
                    is_version ? "a second version message" : "a command before the version",
                    {"command", command});
    has_version_ = has_version_ || is_version;
    return {};
}

} // namespace moat::machine::vfio_user
