// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds a command's data: physical region pages (4.3) and scatter-gather lists (4.4), from hostile
// memory: everything is bounded.
#include "moat/core/bits.hpp"

#include "machine/soft/nvme.hpp"

#include <algorithm>

namespace moat::machine::soft {

namespace {

constexpr std::uint64_t in_page = Nvme::page_bytes - 1;

struct Descriptor {
    std::uint64_t address = 0;
    std::uint32_t bytes = 0;
    std::uint32_t type = 0; ///< 31..28 the type, 27..24 the subtype

    enum Type : std::uint8_t { data_block = 0, segment = 2, last_segment = 3 };

    [[nodiscard]] unsigned kind() const { return type >> 28; }

    [[nodiscard]] bool has_subtype() const { return (type >> 24 & 0xf) != 0; }
};

static_assert(sizeof(Descriptor) == 16);

} // namespace

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
    // A link leads to the start of a page: each list then describes data, so the loop ends however
    // the lists are linked.
    while (left != 0) {
        std::uint64_t entry = 0;
        if (bus.read(Iova(list), std::as_writable_bytes(std::span(&entry, 1))).value() !=
            sizeof entry)
            return std::unexpected(Status::data_transfer_error);
        const bool last_of_page = (list & in_page) == page_bytes - sizeof entry;
        if ((entry & in_page) != 0)
            return std::unexpected(Status::invalid_prp_offset);
        if (last_of_page && left > page_bytes) {
            list = entry;
            continue;
        }
        const std::uint64_t here = std::min(left, page_bytes);
        segments_.push_back({Iova(entry), here});
        left -= here;
        list += sizeof entry;
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
