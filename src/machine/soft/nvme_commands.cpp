// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's I/O commands (chapter 6 of the specification), and where data lies: physical
// region pages (4.3) and scatter-gather lists (4.4), from hostile memory: everything is bounded.
#include "machine/soft/nvme.hpp"

#include <algorithm>
#include <cstring>

namespace moat::machine::soft {

namespace {

enum IoOpcode : std::uint8_t {
    flush = 0x00,
    write_blocks = 0x01,
    read_blocks = 0x02,
    compare = 0x05,
    write_zeroes = 0x08,
    dataset_management = 0x09,
};

constexpr std::uint32_t every_namespace = 0xffffffff;
constexpr std::uint64_t in_page = Nvme::page_bytes - 1;

/// Of a scatter-gather list.
struct Descriptor {
    std::uint64_t address = 0;
    std::uint32_t bytes = 0;
    std::uint32_t type = 0; ///< 31..28 the type, 27..24 the subtype

    enum Type : std::uint8_t { data_block = 0, segment = 2, last_segment = 3 };

    [[nodiscard]] unsigned kind() const { return type >> 28; }

    [[nodiscard]] bool has_subtype() const { return (type >> 24 & 0xf) != 0; }
};

static_assert(sizeof(Descriptor) == 16);

/// Of dataset management.
struct BlockRange {
    std::uint32_t attributes = 0;
    std::uint32_t count = 0;
    std::uint64_t first = 0;
};

static_assert(sizeof(BlockRange) == 16);

} // namespace

/// The commands that the controller has not taken yet. Of their data, only what the entry itself
/// names: two pages, or the first descriptor's memory.
bool Nvme::uses(IovaRange range, BusMaster& bus) const {
    const auto names = [&](const Command& command) {
        const std::uint64_t bytes = ((command.words[12] & 0xffff) + 1) << options_.block_lg2;
        const bool has_second =
            command.pointer_kind() == 0 && bytes > page_bytes - (command.wide(6) & in_page);
        return range.contains(Iova(command.wide(6))) ||
               (has_second && range.contains(Iova(command.wide(8))));
    };
    for (std::size_t queue = 1; queue != submissions_.size(); ++queue) {
        const SubmissionQueue& from = submissions_[queue];
        for (unsigned at = from.head; at != from.tail; at = (at + 1) % from.entries) {
            Command command;
            const Iova entry(from.base.value() + at * sizeof command);
            if (bus.read(entry, std::as_writable_bytes(std::span(command.words))).value() !=
                sizeof command)
                return false;
            const std::uint8_t opcode = command.opcode();
            if ((opcode == read_blocks || opcode == write_blocks || opcode == compare) &&
                names(command))
                return true;
        }
    }
    return false;
}

Nvme::Outcome Nvme::run_io(BusMaster& bus, const Command& command) {
    const std::uint32_t name_space = command.name_space();
    if (name_space != 1 && !(command.opcode() == flush && name_space == every_namespace))
        return {Status::invalid_namespace};
    const std::uint64_t count = (command.words[12] & 0xffff) + 1;
    switch (command.opcode()) {
    case flush:
        return {};
    case dataset_management:
        return deallocate(bus, command);
    case write_blocks:
    case read_blocks:
    case compare:
        if (count << options_.block_lg2 > most_data)
            return {Status::invalid_field};
        break;
    case write_zeroes:
        break;
    default:
        return {Status::invalid_opcode};
    }
    const auto where = blocks(command.wide(10), count);
    if (!where)
        return {where.error()};
    if (command.opcode() == read_blocks)
        return send(bus, command, *where);
    if (command.opcode() == write_blocks)
        return receive(bus, command, *where);
    if (command.opcode() == compare)
        return compare_blocks(bus, command, *where);
    std::ranges::fill(*where, std::byte{0});
    return {};
}

std::expected<std::span<std::byte>, Nvme::Status> Nvme::blocks(std::uint64_t first,
                                                               std::uint64_t count) {
    const std::uint64_t all = medium().size() >> options_.block_lg2;
    if (first >= all || count > all - first)
        return std::unexpected(Status::lba_out_of_range);
    return medium().subspan(first << options_.block_lg2, count << options_.block_lg2);
}

Nvme::Outcome Nvme::compare_blocks(BusMaster& bus, const Command& command,
                                   std::span<const std::byte> blocks) {
    buffer_.assign(blocks.size(), std::byte{0});
    const Outcome received = receive(bus, command, buffer_);
    const bool differ = received.status == Status::success && !std::ranges::equal(buffer_, blocks);
    return differ ? Outcome{Status::compare_failure} : received;
}

/// All ranges or none.
Nvme::Outcome Nvme::deallocate(BusMaster& bus, const Command& command) {
    const bool is_wanted = (command.words[11] & 4) != 0; // the rest are hints
    std::array<BlockRange, 256> memory;
    const std::span<BlockRange> ranges(memory.data(), (command.words[10] & 0xff) + 1);
    if (const Outcome received = receive(bus, command, std::as_writable_bytes(ranges));
        received.status != Status::success)
        return received;
    for (const BlockRange& each : ranges)
        if (each.count != 0 && !blocks(each.first, each.count))
            return {Status::lba_out_of_range};
    for (const BlockRange& each : ranges)
        if (is_wanted && each.count != 0)
            std::ranges::fill(*blocks(each.first, each.count), std::byte{0});
    return {};
}

Nvme::Outcome Nvme::send(BusMaster& bus, const Command& command, std::span<const std::byte> data) {
    const Segments where = segments(bus, command, data.size());
    if (!where)
        return {where.error()};
    const bool arrived = data_.to_memory(bus, *where, data);
    return {arrived ? Status::success : Status::data_transfer_error};
}

Nvme::Outcome Nvme::receive(BusMaster& bus, const Command& command, std::span<std::byte> data) {
    const Segments where = segments(bus, command, data.size());
    if (!where)
        return {where.error()};
    const bool arrived = data_.from_memory(bus, *where, data);
    return {arrived ? Status::success : Status::data_transfer_error};
}

Nvme::Segments Nvme::segments(BusMaster& bus, const Command& command, std::uint64_t bytes) {
    segments_.clear();
    switch (command.pointer_kind()) {
    case 0:
        return by_pages(bus, command, bytes);
    case 1:
    case 2: // differs only in metadata, which does not exist here
        return by_list(bus, command, bytes);
    default:
        return std::unexpected(Status::invalid_field);
    }
}

Nvme::Segments Nvme::by_pages(BusMaster& bus, const Command& command, std::uint64_t bytes) {
    const std::uint64_t first = command.wide(6);
    std::uint64_t list = command.wide(8);
    if (first % 4 != 0)
        return std::unexpected(Status::invalid_prp_offset);
    const std::uint64_t in_first = std::min(bytes, page_bytes - (first & in_page));
    segments_.push_back({Iova(first), in_first});
    std::uint64_t left = bytes - in_first;
    if (left == 0)
        return segments_;
    if (left <= page_bytes) {
        if ((list & in_page) != 0)
            return std::unexpected(Status::invalid_prp_offset);
        segments_.push_back({Iova(list), left});
        return segments_;
    }
    if (list % 8 != 0)
        return std::unexpected(Status::invalid_prp_offset);
    while (left != 0) {
        const std::uint64_t room = (page_bytes - (list & in_page)) / 8;
        const std::uint64_t pages = (left + in_page) / page_bytes;
        // A link leads to the start of a page, so each further list describes data.
        const bool is_linked = pages > room;
        std::array<std::uint64_t, page_bytes / 8> memory;
        const std::span<std::uint64_t> entries(memory.data(), std::min(pages, room));
        if (bus.read(Iova(list), std::as_writable_bytes(entries)).value() != entries.size_bytes())
            return std::unexpected(Status::data_transfer_error);
        for (const std::uint64_t entry : entries)
            if ((entry & in_page) != 0)
                return std::unexpected(Status::invalid_prp_offset);
        for (const std::uint64_t entry : entries.first(entries.size() - (is_linked ? 1 : 0))) {
            const std::uint64_t here = std::min(left, page_bytes);
            segments_.push_back({Iova(entry), here});
            left -= here;
        }
        list = entries.back();
    }
    return segments_;
}

Nvme::Segments Nvme::by_list(BusMaster& bus, const Command& command, std::uint64_t bytes) {
    Descriptor next{command.wide(6), command.words[8], command.words[9]};
    std::uint64_t left = bytes;
    const auto add = [&](const Descriptor& block) {
        if (block.bytes > left)
            return false;
        if (block.bytes != 0)
            segments_.push_back({Iova(block.address), block.bytes});
        left -= block.bytes;
        return true;
    };
    unsigned read = 0;
    while (next.kind() == Descriptor::segment || next.kind() == Descriptor::last_segment) {
        const bool is_last = next.kind() == Descriptor::last_segment;
        if (next.has_subtype() || next.bytes == 0 || next.bytes % sizeof(Descriptor) != 0)
            return std::unexpected(Status::invalid_segment_descriptor);
        const std::uint64_t count = next.bytes / sizeof(Descriptor);
        if (count > most_descriptors - read)
            return std::unexpected(Status::invalid_descriptor_count);
        read += static_cast<unsigned>(count);
        std::vector<Descriptor> list(count);
        if (bus.read(Iova(next.address), std::as_writable_bytes(std::span(list))).value() !=
            next.bytes)
            return std::unexpected(Status::data_transfer_error);
        // The last entry of a segment links to the next segment.
        const std::uint64_t blocks = is_last ? count : count - 1;
        for (std::uint64_t index = 0; index != blocks; ++index) {
            if (list[index].kind() != Descriptor::data_block || list[index].has_subtype())
                return std::unexpected(Status::invalid_descriptor_type);
            if (!add(list[index]))
                return std::unexpected(Status::invalid_data_length);
        }
        if (is_last)
            return left == 0 ? Segments(segments_) : std::unexpected(Status::invalid_data_length);
        next = list.back();
    }
    if (next.kind() != Descriptor::data_block || next.has_subtype() || read != 0)
        return std::unexpected(Status::invalid_descriptor_type);
    if (!add(next) || left != 0)
        return std::unexpected(Status::invalid_data_length);
    return segments_;
}

} // namespace moat::machine::soft
