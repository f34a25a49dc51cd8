// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mapped memory, and files of memory that another process can map too. They have no name in any
// folder, so that nothing of them is left, however this process ends.
#pragma once

#include "moat/core/types.hpp"

#include "platform/file_descriptor.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace moat::platform {

/// Readable, writable, shared with whoever maps the same file; zero where never written.
class Mapping {
  public:
    /// Of a file from its start on, or, with -1, of nothing. Errors: empty, no_memory.
    static Result<Mapping> create(int file, ByteCount size);

    Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

    Mapping& operator=(Mapping&&) = delete;
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping();

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

  private:
    explicit Mapping(std::span<std::byte> bytes) : bytes_(bytes) {}

    std::span<std::byte> bytes_;
};

class MemoryFile {
  public:
    /// `label` is seen in /proc/PID/maps alone. Errors: empty, no_memory, io.
    static Result<MemoryFile> create(const char* label, ByteCount size);

    [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }

    /// To be handed to a ChildProcess, which then opens `path`.
    [[nodiscard]] int descriptor() const { return descriptor_.get(); }

    /// Names the file inside a process that has the descriptor.
    [[nodiscard]] std::string path() const;

  private:
    MemoryFile(FileDescriptor descriptor, Mapping mapping)
        : descriptor_(std::move(descriptor)), mapping_(std::move(mapping)) {}

    FileDescriptor descriptor_;
    Mapping mapping_;
};

} // namespace moat::platform
