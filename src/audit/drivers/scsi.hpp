// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SCSI disks as the audit uses them: their operations and command blocks, whatever carries them.
// Source: SCSI Block Commands and SCSI Primary Commands (T10).
#pragma once

#include "audit/drivers/device.hpp"

#include <array>
#include <cstdint>

namespace moat::audit::scsi {

constexpr std::uint64_t block_bytes = 512; ///< of the disks that are audited

/// By their codes.
enum class Command : std::uint8_t {
    test_unit_ready = 0x00,
    read_capacity_10 = 0x25,
    read_10 = 0x28,
    write_10 = 0x2a,
    synchronize_cache = 0x35,
};

using CommandBlock = std::array<std::uint8_t, 16>;

/// How many bytes of `block` the command has.
[[nodiscard]] constexpr std::uint8_t length_of(const CommandBlock& block) {
    return block[0] < 0x20 ? 6 : 10;
}

/// `position` in blocks; `length` in bytes, whole blocks for a read or a write.
[[nodiscard]] constexpr CommandBlock block_of(Command command, std::uint64_t position,
                                              ByteCount length) {
    CommandBlock block{static_cast<std::uint8_t>(command)};
    const auto big_endian = [&](std::size_t at, unsigned bytes, std::uint64_t value) {
        for (unsigned i = 0; i != bytes; ++i)
            block.at(at + i) = static_cast<std::uint8_t>(value >> 8 * (bytes - 1 - i));
    };
    if (command == Command::read_10 || command == Command::write_10) {
        big_endian(2, 4, position);
        big_endian(7, 2, length.value() / block_bytes);
    }
    return block;
}

inline constexpr ByteCount capacity_bytes{8}; ///< of the data of read_capacity_10

/// The disk's size, from the data of read_capacity_10. Errors: io (its blocks have another size).
[[nodiscard]] inline Result<Medium> medium_from(std::span<const std::byte> capacity) {
    const auto word = [&](std::size_t at) {
        std::uint64_t value = 0;
        for (std::size_t i = at; i != at + 4; ++i)
            value = value << 8 | static_cast<std::uint8_t>(capacity[i]);
        return value;
    };
    if (word(4) != block_bytes)
        return fail(ErrorCode::io, "the disk's blocks do not have 512 bytes", {"bytes", word(4)});
    return medium_of(word(0) + 1, ByteCount(block_bytes)); // word 0 is the last block
}

/// What carries commands to a disk.
class Transport {
  public:
    /// Runs one command, with the data of the request. Errors: the machine's.
    [[nodiscard]] virtual Result<Answer> execute(const Request& request,
                                                 const CommandBlock& block) = 0;

  protected:
    ~Transport() = default;
};

/// Return: the disk's size; `capacity` gets the data of read_capacity_10. `read`: the place of an
/// operation from the device. Errors: io (also if the disk does not report it), the transport's.
[[nodiscard]] inline Result<Medium> size_of_disk(Transport& transport, unsigned read,
                                                 const Buffer& capacity) {
    const Request request{.operation = read, .data = capacity.iova, .length = capacity_bytes};
    MOAT_LET(const Answer answer,
             transport.execute(request, block_of(Command::read_capacity_10, 0, {})));
    if (answer.verdict != Verdict::success)
        return fail(ErrorCode::io, "the disk does not report its size", {"code", answer.code});
    return medium_from(capacity.bytes);
}

/// Returns when the disk is ready; the first command after a reset fails. `flush`: the place of an
/// operation without data. Gives up once `running` is false. Errors: io, the transport's.
[[nodiscard]] inline Result<void> become_ready(Transport& transport, unsigned flush,
                                               const bool& running) {
    constexpr unsigned attempts = 4;
    for (unsigned attempt = 0; running && attempt != attempts; ++attempt) {
        MOAT_LET(const Answer answer,
                 transport.execute({.operation = flush, .data = {}, .length = {}},
                                   block_of(Command::test_unit_ready, 0, {})));
        if (answer.verdict == Verdict::success)
            return {};
    }
    return fail(ErrorCode::io, "the SCSI disk does not become ready");
}

} // namespace moat::audit::scsi
