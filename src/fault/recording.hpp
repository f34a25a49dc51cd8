// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Recordings: DmaEvents in a compact, append-only file, which can be cut anywhere and read while it
// is written. docs/recording_format.md describes the bytes. `moat watch` and spaces write them.
#pragma once

#include "moat/core/result.hpp"
#include "moat/fault/report.hpp"

#include "fault/dma_event.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace moat::fault {

/// Appends all of `bytes` to a file.
using WriteBytes = std::function<Result<void>(std::span<const std::uint8_t> bytes)>;

/// Reads the next bytes of a file into `bytes`. Return: how many; 0 at the end, where a later call
/// may find more.
using ReadBytes = std::function<Result<std::size_t>(std::span<std::uint8_t> bytes)>;

/// Writes events to a file. Not thread-safe. Memory: below 40 MB, however long it records.
class RecordingWriter {
  public:
    /// `symbolise` outlives the writer. The writer passes it each address of a stack once.
    explicit RecordingWriter(WriteBytes write, Symbolise symbolise = no_symbols);
    RecordingWriter(RecordingWriter&&) noexcept;
    RecordingWriter& operator=(RecordingWriter&&) noexcept;
    ~RecordingWriter();

    /// Appends an event; writes when 64 KiB wait. Errors: `limit` (a text above 16 KiB, a stack
    /// above 256 addresses), and the event is not recorded; those of the file, after which every
    /// call returns the same error, and the file holds all whole records before it.
    [[nodiscard]] Result<void> add(const DmaEvent& event);

    /// Writes what waits. Call it before the end, and as often as a crash may lose events.
    [[nodiscard]] Result<void> flush();

    /// How many bytes were added, written or waiting.
    [[nodiscard]] std::uint64_t size() const;

  private:
    class State;
    std::unique_ptr<State> state_;
};

/// Reads events. Not thread-safe. Memory: below 100 MB, whatever the file holds.
class RecordingReader {
  public:
    explicit RecordingReader(ReadBytes read);
    RecordingReader(RecordingReader&&) noexcept;
    RecordingReader& operator=(RecordingReader&&) noexcept;
    ~RecordingReader();

    /// Reads the next event. Return: a view until the next call; nullptr at the end of the file, or
    /// in front of a record of which a part is missing: call again when the file has grown.
    /// Errors, with the offset of the record and the value: `mismatch` (no recording, a wrong check
    /// byte, an impossible field), `unsupported` (another version), `limit`; and those of the file.
    /// After an error every call returns it again.
    [[nodiscard]] Result<const DmaEvent*> next();

    /// The offset of the next record: the length of what was understood.
    [[nodiscard]] std::uint64_t offset() const;

    /// After `next` returned nullptr: how many bytes of an incomplete record follow.
    [[nodiscard]] std::size_t incomplete_bytes() const;

    /// Passes the frames that the recording has for an address, or one with the address alone.
    void symbolise(std::uintptr_t address, FrameSink sink) const;

  private:
    class State;
    std::unique_ptr<State> state_;
};

} // namespace moat::fault
