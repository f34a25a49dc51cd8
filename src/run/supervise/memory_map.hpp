// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The mappings of a process, by address, and what a descriptor of it refers to. Both from /proc.
#pragma once

#include "platform/file_descriptor.hpp"

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <sys/types.h>

namespace moat::run {

/// What makes two descriptors or mappings the same file.
struct FileIdentity {
    dev_t device = 0;
    ino_t inode = 0;
    auto operator<=>(const FileIdentity&) const = default;
};

struct MappedFile {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::uint64_t offset = 0; ///< in the file, at `start`
    bool executable = false;
    FileIdentity file = {};
    std::string path; ///< empty for memory without a file
};

/// The mapping at an address of a process. Nothing if there is none, or no process.
[[nodiscard]] std::optional<MappedFile> mapping_at(pid_t process, std::uint64_t address);

/// The same for one process, until it executes another program: faster, but without paths where the
/// kernel can be asked (Linux 6.11). Thread-safe.
class MemoryMap {
  public:
    explicit MemoryMap(pid_t process);

    [[nodiscard]] std::optional<MappedFile> at(std::uint64_t address) const;

  private:
    pid_t process_;
    platform::FileDescriptor file_;
};

/// "/proc/PROCESS/fd/DESCRIPTOR"
[[nodiscard]] std::string descriptor_path(pid_t process, int descriptor);

[[nodiscard]] std::optional<FileIdentity> identify(pid_t process, int descriptor);

} // namespace moat::run
