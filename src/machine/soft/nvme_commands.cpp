// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's commands: chapters 5 (admin) and 6 (NVM) of the specification; and their data:
// physical region pages (4.3) and scatter-gather lists (4.4), from hostile memory: everything is
// bounded.

#include "machine/soft/nvme.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

namespace moat::machine::soft {

namespace {

enum AdminOpcode : std::uint8_t {
    delete_submission = 0x00,
    create_submission = 0x01,
    get_log_page = 0x02,
    delete_completion = 0x04,
    create_completion = 0x05,
    identify_opcode = 0x06,
    abort_opcode = 0x08,
    set_features_opcode = 0x09,
    get_features_opcode = 0x0a,
    asynchronous_event = 0x0c,
};

enum IoOpcode : std::uint8_t { flush = 0x00, write_blocks = 0x01, read_blocks = 0x02 };

constexpr std::uint32_t every_namespace = 0xffffffff;
constexpr unsigned number_of_queues = 0x07;
constexpr unsigned most_event_requests = 4;

/// The features that exist: arbitration to asynchronous events, one bit each.
constexpr std::uint32_t known_features = 1U << 0x1 | 1U << 0x2 | 1U << 0x4 | 1U << 0x5 | 1U << 0x6 |
                                         1U << 0x7 | 1U << 0x8 | 1U << 0x9 | 1U << 0xa | 1U << 0xb;

using Page = std::array<std::byte, Nvme::page_bytes>;

template <class T>
void put(std::span<std::byte> page, std::size_t offset, T value) {
    std::memcpy(page.data() + offset, &value, sizeof value);
}

/// Padded with spaces, as the specification requires.
void put_text(std::span<std::byte> page, std::size_t offset, std::size_t size,
              std::string_view text) {
    std::memset(page.data() + offset, ' ', size);
    std::memcpy(page.data() + offset, text.data(), std::min(size, text.size()));
}

[[nodiscard]] Page identify_controller() {
    Page page{};
    put<std::uint16_t>(page, 0, 0x1b36);
    put<std::uint16_t>(page, 2, 0x1af4);
    put_text(page, 4, 20, "MOAT0001");
    put_text(page, 24, 40, "moat soft NVMe");
    put_text(page, 64, 8, "1.0");
    put<std::uint8_t>(page, 77,
                      static_cast<std::uint8_t>(std::countr_zero(Nvme::most_data / 4096)));
    put<std::uint16_t>(page, 78, 1);          // controller
    put<std::uint32_t>(page, 80, 0x00010400); // version
    put<std::uint8_t>(page, 259, most_event_requests - 1);
    put<std::uint8_t>(page, 512, 0x66); // submission entries of 2^6 bytes
    put<std::uint8_t>(page, 513, 0x44); // completion entries of 2^4 bytes
    put<std::uint32_t>(page, 516, 1);   // namespaces
    put<std::uint8_t>(page, 525, 1);    // a volatile write cache
    put<std::uint32_t>(page, 536, 1);   // scatter-gather lists
    return page;
}

[[nodiscard]] Page identify_namespace(std::uint64_t blocks, unsigned block_lg2) {
    Page page{};
    for (const std::size_t offset : {0U, 8U, 16U}) // size, capacity, utilisation
        put<std::uint64_t>(page, offset, blocks);
    put<std::uint8_t>(page, 130, static_cast<std::uint8_t>(block_lg2)); // format 0
    return page;
}

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

std::optional<Nvme::Outcome> Nvme::run_admin(BusMaster& bus, const Command& command) {
    switch (command.opcode()) {
    case delete_submission:
        return delete_submission_queue(command);
    case create_submission:
        return create_submission_queue(command);
    case get_log_page:
        return log_page(bus, command);
    case delete_completion:
        return delete_completion_queue(command);
    case create_completion:
        return create_completion_queue(command);
    case identify_opcode:
        return identify(bus, command);
    case abort_opcode:
        return Outcome{.result = 1}; // not aborted: it has completed
    case set_features_opcode:
        return set_features(command);
    case get_features_opcode:
        return get_features(command);
    case asynchronous_event:
        if (waiting_for_events_ == most_event_requests)
            return Outcome{Status::invalid_field};
        ++waiting_for_events_;
        return std::nullopt;
    default:
        return Outcome{Status::invalid_opcode};
    }
}

Nvme::Outcome Nvme::run_io(BusMaster& bus, const Command& command) {
    switch (command.opcode()) {
    case flush:
        if (command.name_space() != 1 && command.name_space() != every_namespace)
            return {Status::invalid_namespace};
        return {};
    case write_blocks:
    case read_blocks:
        return transfer_blocks(bus, command);
    default:
        return {Status::invalid_opcode};
    }
}

Nvme::Outcome Nvme::identify(BusMaster& bus, const Command& command) {
    switch (command.words[10] & 0xff) {
    case 0x00:
        if (command.name_space() != 1)
            return {Status::invalid_namespace};
        return send(bus, command, identify_namespace(medium_.size() >> block_lg2_, block_lg2_));
    case 0x01: {
        static const Page controller = identify_controller();
        return send(bus, command, controller);
    }
    case 0x02: {
        Page list{};
        if (command.name_space() == 0)
            put<std::uint32_t>(list, 0, 1);
        return send(bus, command, list);
    }
    default:
        return {Status::invalid_field};
    }
}

Nvme::Outcome Nvme::log_page(BusMaster& bus, const Command& command) {
    const std::uint64_t words =
        (command.words[10] >> 16 | std::uint64_t{command.words[11] & 0xffff} << 16) + 1;
    const std::uint64_t offset = command.wide(12);
    const unsigned which = command.words[10] & 0xff;
    if (which < 1 || which > 3) // errors, health, firmware
        return {Status::invalid_log_page};
    if (words > most_data / 4 || offset % 4 != 0 || offset > page_bytes)
        return {Status::invalid_field};
    std::array<std::byte, 512> log{};
    if (which == 2) {
        put<std::uint16_t>(log, 1, 300); // 300 K
        put<std::uint8_t>(log, 3, 100);  // available spare, in percent
    } else if (which == 3) {
        put<std::uint8_t>(log, 0, 1); // slot 1 is active
    }
    log_.assign(words * 4, std::byte{0});
    if (offset < log.size())
        std::memcpy(log_.data(), log.data() + offset,
                    std::min<std::uint64_t>(log_.size(), log.size() - offset));
    return send(bus, command, log_);
}

Nvme::Outcome Nvme::set_features(const Command& command) {
    const unsigned which = command.words[10] & 0xff;
    if (which >= features_.size() || (known_features >> which & 1) == 0)
        return {Status::invalid_field};
    if (which == number_of_queues)
        return get_features(command); // a fixed number of queues, whatever is requested
    features_[which] = command.words[11];
    return {};
}

Nvme::Outcome Nvme::get_features(const Command& command) const {
    const unsigned which = command.words[10] & 0xff;
    if (which >= features_.size() || (known_features >> which & 1) == 0)
        return {Status::invalid_field};
    if (which == number_of_queues)
        return {.result = (most_queues - 2) | (most_queues - 2) << 16}; // of I/O queues, minus one
    return {.result = features_[which]};
}

Nvme::Outcome Nvme::transfer_blocks(BusMaster& bus, const Command& command) {
    if (command.name_space() != 1)
        return {Status::invalid_namespace};
    const std::uint64_t blocks = medium_.size() >> block_lg2_;
    const std::uint64_t first = command.wide(10);
    const std::uint64_t count = (command.words[12] & 0xffff) + 1;
    if (count << block_lg2_ > most_data)
        return {Status::invalid_field};
    if (first >= blocks || count > blocks - first)
        return {Status::lba_out_of_range};
    const std::span<std::byte> data =
        std::span(medium_).subspan(first << block_lg2_, count << block_lg2_);
    if (command.opcode() == read_blocks)
        return send(bus, command, data);
    const Segments where = segments(bus, command, data.size());
    if (!where)
        return {where.error()};
    const bool arrived = data_.from_memory(bus, *where, data);
    return {arrived ? Status::success : Status::data_transfer_error};
}

Nvme::Outcome Nvme::send(BusMaster& bus, const Command& command, std::span<const std::byte> data) {
    const Segments where = segments(bus, command, data.size());
    if (!where)
        return {where.error()};
    const bool arrived = data_.to_memory(bus, *where, data);
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
