// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller's admin commands (chapter 5 of the specification) without those for queues:
// identification, logs, features, events.
#include "machine/soft/nvme.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
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

enum Log : std::uint8_t { errors = 1, health = 2, firmware = 3, command_effects = 5 };

enum Feature : std::uint8_t { power_state_feature = 0x02, number_of_queues = 0x07 };

/// The features that exist: arbitration to asynchronous events, one bit each.
constexpr std::uint32_t known_features = 1U << 0x1 | 1U << 0x2 | 1U << 0x4 | 1U << 0x5 | 1U << 0x6 |
                                         1U << 0x7 | 1U << 0x8 | 1U << 0x9 | 1U << 0xa | 1U << 0xb;

constexpr std::string_view firmware_revision = "1.0";
constexpr std::uint32_t last_namespace = 0xfffffffd;

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

/// "MOAT0001"
[[nodiscard]] std::string serial_text(unsigned number) {
    const std::string text = std::to_string(number);
    return "MOAT" + std::string(4 - std::min<std::size_t>(4, text.size()), '0') + text;
}

/// An identifier of `size` bytes in the format of its kind: a company (QEMU's), then the number.
void put_identifier(std::span<std::byte> page, std::size_t offset, std::size_t size,
                    unsigned number) {
    constexpr std::array company = {std::byte{0x52}, std::byte{0x54}, std::byte{0x00}};
    std::ranges::copy(company, page.begin() + static_cast<std::ptrdiff_t>(offset + size - 8));
    for (unsigned byte = 0; byte != 4; ++byte) // the most significant first
        page[offset + size - 1 - byte] = static_cast<std::byte>(number >> 8 * byte);
}

[[nodiscard]] Page identify_controller(unsigned serial_number) {
    const std::string serial = serial_text(serial_number);
    Page page{};
    put<std::uint16_t>(page, 0, 0x1b36);
    put<std::uint16_t>(page, 2, 0x1af4);
    put_text(page, 4, 20, serial);
    put_text(page, 24, 40, "moat soft NVMe");
    put_text(page, 64, 8, firmware_revision);
    put<std::uint8_t>(page, 77,
                      static_cast<std::uint8_t>(std::countr_zero(Nvme::most_data / 4096)));
    put<std::uint16_t>(page, 78, 1);          // controller
    put<std::uint32_t>(page, 80, 0x00010400); // version
    put<std::uint8_t>(page, 111, 1);          // an I/O controller
    put<std::uint8_t>(page, 258, 3);          // at most four aborts at a time
    put<std::uint8_t>(page, 259, Nvme::most_event_requests - 1);
    put<std::uint8_t>(page, 260, 3);    // one firmware slot, read-only
    put<std::uint8_t>(page, 261, 6);    // logs: effects of commands, long lengths and offsets
    put<std::uint16_t>(page, 266, 343); // temperatures to warn of and to shut down at, in K
    put<std::uint16_t>(page, 268, 353);
    put<std::uint8_t>(page, 512, 0x66);  // submission entries of 2^6 bytes
    put<std::uint8_t>(page, 513, 0x44);  // completion entries of 2^4 bytes
    put<std::uint32_t>(page, 516, 1);    // namespaces
    put<std::uint16_t>(page, 520, 0x0d); // compare, deallocate, write zeroes
    put<std::uint8_t>(page, 525, 7);     // a volatile write cache, flushed for all namespaces
    put<std::uint32_t>(page, 536, 1);    // scatter-gather lists
    const std::string name = "nqn.2014-08.org.nvmexpress:1b361af4" + serial;
    std::memcpy(page.data() + 768, name.data(), name.size());
    put<std::uint16_t>(page, 2048, 2500); // 25 W in the only power state
    return page;
}

[[nodiscard]] Page identify_namespace(std::uint64_t blocks, const NvmeOptions& options) {
    Page page{};
    for (const std::size_t offset : {0U, 8U, 16U}) // size, capacity, utilisation
        put<std::uint64_t>(page, offset, blocks);
    put<std::uint8_t>(page, 33, 9); // deallocated blocks read as zeroes; write zeroes deallocates
    put_identifier(page, 104, 16, options.serial_number);
    put_identifier(page, 120, 8, options.serial_number);
    put<std::uint8_t>(page, 130, static_cast<std::uint8_t>(options.block_lg2)); // format 0
    return page;
}

/// Figure 248: EUI-64, NGUID and UUID.
[[nodiscard]] Page identification_descriptors(unsigned serial_number) {
    Page page{};
    std::size_t at = 0;
    for (const auto& [type, size] :
         std::array<std::array<std::uint8_t, 2>, 3>{{{1, 8}, {2, 16}, {3, 16}}}) {
        put<std::uint8_t>(page, at, type);
        put<std::uint8_t>(page, at + 1, size);
        put_identifier(page, at + 4, size, serial_number);
        if (type == 3) { // RFC 4122: random, of variant 1
            put<std::uint8_t>(page, at + 4 + 6, 0x40);
            put<std::uint8_t>(page, at + 4 + 8, 0x80);
        }
        at += 4U + size;
    }
    return page;
}

/// Whether commands are supported, and change blocks.
[[nodiscard]] Page effects_log() {
    constexpr std::uint32_t supported = 1;
    constexpr std::uint32_t changes_blocks = 2;
    Page page{};
    for (const unsigned admin :
         {0x00U, 0x01U, 0x02U, 0x04U, 0x05U, 0x06U, 0x08U, 0x09U, 0x0aU, 0x0cU})
        put(page, 4 * std::size_t{admin}, supported);
    for (const unsigned io : {0x00U, 0x02U, 0x05U})
        put(page, 1024 + 4 * std::size_t{io}, supported);
    for (const unsigned io : {0x01U, 0x08U, 0x09U})
        put(page, 1024 + 4 * std::size_t{io}, supported | changes_blocks);
    return page;
}

/// Return: its size; 0 if there is no such log.
[[nodiscard]] std::size_t fill_log(unsigned which, Page& page) {
    switch (which) {
    case errors:
        return 64; // one entry, unused
    case health:
        put<std::uint16_t>(page, 1, 300); // K
        put<std::uint8_t>(page, 3, 100);  // available spare, in percent
        put<std::uint8_t>(page, 4, 10);   // and its threshold
        return 512;
    case firmware:
        put<std::uint8_t>(page, 0, 1); // slot 1 is active
        put_text(page, 8, 8, firmware_revision);
        return 512;
    case command_effects:
        page = effects_log();
        return page.size();
    default:
        return 0;
    }
}

} // namespace

std::optional<Nvme::Outcome> Nvme::run_admin(BusMaster& bus, const Command& command) {
    if (command.pointer_kind() != 0) // scatter-gather lists are for I/O commands
        return Outcome{Status::invalid_field};
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
        return abort(bus, command);
    case set_features_opcode:
        return set_features(command);
    case get_features_opcode:
        return get_features(command);
    case asynchronous_event:
        return request_event(command);
    default:
        return Outcome{Status::invalid_opcode};
    }
}

std::optional<Nvme::Outcome> Nvme::request_event(const Command& command) {
    if (event_requests_.size() == most_event_requests)
        return Outcome{Status::too_many_event_requests};
    event_requests_.push_back(command.number());
    return std::nullopt;
}

/// Only requests for events last long enough to be aborted.
Nvme::Outcome Nvme::abort(BusMaster& bus, const Command& command) {
    constexpr std::uint32_t not_aborted = 1;
    const std::uint32_t queue = command.words[10] & 0xffff;
    const auto number = static_cast<std::uint16_t>(command.words[10] >> 16);
    const auto found = std::ranges::find(event_requests_, number);
    if (queue != 0 || found == event_requests_.end() || completions_[0].free() < 2)
        return {.result = not_aborted};
    event_requests_.erase(found);
    complete(bus, 0, number, {Status::command_aborted});
    return {};
}

Nvme::Outcome Nvme::identify(BusMaster& bus, const Command& command) {
    const std::uint32_t name_space = command.name_space();
    switch (command.words[10] & 0xff) {
    case 0x00:
        if (name_space != 1)
            return {Status::invalid_namespace};
        return send(bus, command,
                    identify_namespace(medium().size() >> options_.block_lg2, options_));
    case 0x01:
        return send(bus, command, identify_controller(options_.serial_number));
    case 0x02: { // the active namespaces after this one
        if (name_space > last_namespace)
            return {Status::invalid_namespace};
        Page list{};
        put<std::uint32_t>(list, 0, name_space == 0 ? 1 : 0);
        return send(bus, command, list);
    }
    case 0x03:
        if (name_space != 1)
            return {Status::invalid_namespace};
        return send(bus, command, identification_descriptors(options_.serial_number));
    default:
        return {Status::invalid_field};
    }
}

Nvme::Outcome Nvme::log_page(BusMaster& bus, const Command& command) {
    const std::uint64_t words =
        (command.words[10] >> 16 | std::uint64_t{command.words[11] & 0xffff} << 16) + 1;
    const std::uint64_t offset = command.wide(12);
    const unsigned which = command.words[10] & 0xff;
    const bool retain_event = (command.words[10] >> 15 & 1) != 0;
    Page log{};
    const std::size_t size = fill_log(which, log);
    if (size == 0)
        return {Status::invalid_log_page};
    if (words > most_data / 4 || offset % 4 != 0 || offset > size)
        return {Status::invalid_field};
    if (which == errors && !retain_event)
        event_is_unread_ = false;
    buffer_.assign(words * 4, std::byte{0});
    std::memcpy(buffer_.data(), log.data() + offset,
                std::min<std::uint64_t>(buffer_.size(), size - offset));
    return send(bus, command, buffer_);
}

Nvme::Outcome Nvme::set_features(const Command& command) {
    const unsigned which = command.words[10] & 0xff;
    const bool save = (command.words[10] >> 31) != 0;
    const std::uint32_t value = command.words[11];
    if (which >= features_.size() || (known_features >> which & 1) == 0)
        return {Status::invalid_field};
    if (save)
        return {Status::feature_not_saveable};
    if (which == number_of_queues)
        return allocate_queues(command);
    if (which == power_state_feature && (value & 0x1f) != 0) // there is one
        return {Status::invalid_field};
    features_[which] = value;
    return {};
}

Nvme::Outcome Nvme::get_features(const Command& command) const {
    const unsigned which = command.words[10] & 0xff;
    if (which >= features_.size() || (known_features >> which & 1) == 0)
        return {Status::invalid_field};
    if (which == number_of_queues)
        return allocated_queues();
    return {.result = features_[which]};
}

} // namespace moat::machine::soft
