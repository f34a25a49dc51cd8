// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Transfers between a program's memory and a device's regions, as pread and pwrite of the device's
// file do them: in pieces, through memory of moat's, since the program's may be missing.
#pragma once

#include "run/client.hpp"
#include "run/session.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

namespace moat::run {

/// A part of a transfer. Return: how many bytes were moved, or -errno.
using TransferPiece =
    FunctionRef<std::int64_t(std::uint64_t memory, std::uint64_t offset, std::span<std::byte>)>;

/// Return: how many bytes were moved, or -errno if none was.
[[nodiscard]] inline std::int64_t in_pieces(std::uint64_t memory, std::size_t bytes,
                                            std::uint64_t offset, TransferPiece move) {
    std::array<std::byte, 256> piece{};
    std::size_t done = 0;
    while (done < bytes) {
        const auto part = std::span(piece).first(std::min(piece.size(), bytes - done));
        const std::int64_t moved = move(memory + done, offset + done, part);
        if (moved == -EFAULT || (moved <= 0 && done == 0))
            return moved;
        if (moved <= 0)
            break;
        done += static_cast<std::size_t>(moved);
    }
    return static_cast<std::int64_t>(done);
}

[[nodiscard]] inline std::int64_t read_region(Session& session, Client& client, File file,
                                              std::uint64_t memory, std::size_t bytes,
                                              std::uint64_t offset) {
    const auto move = [&](std::uint64_t to, std::uint64_t from, std::span<std::byte> part) {
        const std::int64_t got = session.read(file, from, part);
        const auto there = part.first(static_cast<std::size_t>(std::max<std::int64_t>(got, 0)));
        return got > 0 && client.write(to, there) != there.size() ? -EFAULT : got;
    };
    return in_pieces(memory, bytes, offset, move);
}

[[nodiscard]] inline std::int64_t write_region(Session& session, Client& client, File file,
                                               std::uint64_t memory, std::size_t bytes,
                                               std::uint64_t offset) {
    const auto move = [&](std::uint64_t from, std::uint64_t to, std::span<std::byte> part) {
        if (client.read(from, part) != part.size())
            return std::int64_t{-EFAULT};
        return session.write(file, to, part);
    };
    return in_pieces(memory, bytes, offset, move);
}

} // namespace moat::run
