// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mapped memory, and files of memory that other processes can map. The files have no name, so
// nothing of them outlives the processes.
#pragma once

#include "moat/core/types.hpp"

#include "platform/file_descriptor.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace moat::platform {

struct MappingOptions {
    std::uint64_t offset = 0;    ///< in the file, a multiple of a page
    unsigned alignment_lg2 = 12; ///< of the address
    bool writable = true;
};

/// Memory shared with every process that maps the same file; zero where never written.
class Mapping {
  public:
    /// Maps `size` bytes of `file`, or memory without a file if that is -1. Errors: empty,
    /// no_memory, unsupported (the file cannot be mapped).
    static Result<Mapping> create(int file, ByteCount size, const MappingOptions& options = {});

    Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

    Mapping& operator=(Mapping&&) = delete;
    ~Mapping();

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

  private:
    explicit Mapping(std::span<std::byte> bytes) : bytes_(bytes) {}

    std::span<std::byte> bytes_;
};

/// Zeroes whole pages of a shared mapping. Many of them then take no memory until they are
/// accessed.
void zero_pages(std::span<std::byte> pages);

class MemoryFile {
  public:
    /// `label` appears only in /proc/PID/maps. Errors: empty, no_memory, io.
    static Result<MemoryFile> create(const char* label, ByteCount size);

    [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }

    /// For a ChildProcess, which opens `path`.
    [[nodiscard]] int descriptor() const { return descriptor_.get(); }

    /// The path of the file in a process that has the descriptor.
    [[nodiscard]] std::string path() const;

  private:
    MemoryFile(FileDescriptor descriptor, Mapping mapping)
        : descriptor_(std::move(descriptor)), mapping_(std::move(mapping)) {}

    FileDescriptor descriptor_;
    Mapping mapping_;
};

} // namespace moat::platform
