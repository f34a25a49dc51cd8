// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// OpenFiles: the VFIO files of all processes. Each has an empty memory file in the program, known
// by its inode however the program duplicates, passes on or maps it.
#pragma once

#include "platform/file_descriptor.hpp"
#include "run/supervise/memory_map.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <sys/types.h>
#include <vector>

namespace moat::run {

struct OpenFile {
    FileIdentity identity = {}; ///< of its memory file
    pid_t process = 0;          ///< that opened it; 0 if it executed another program since
    File file = File::none;
    std::uint64_t position = 0; ///< of read and write
};

/// Thread-safe.
class OpenFiles {
  public:
    OpenFiles();

    /// Becomes readable when a file is closed.
    [[nodiscard]] int events() const { return events_.get(); }

    /// `descriptor` of `process` is `file` from now on. Return: false if it is already closed.
    [[nodiscard]] bool add(pid_t process, int descriptor, File file);

    // Return: nothing if it is no file of VFIO's.
    [[nodiscard]] std::optional<OpenFile> find(const FileIdentity& identity) const;
    [[nodiscard]] std::optional<OpenFile> find(pid_t process, int descriptor) const;

    /// `process` executes another program, or ended: its files are nobody's.
    void disown(pid_t process);

    void set_position(const FileIdentity& identity, std::uint64_t position);

    /// A file that no descriptor and no mapping refers to any more; it is forgotten. Nothing if all
    /// are in use.
    [[nodiscard]] std::optional<OpenFile> take_closed();

  private:
    void read_events();

    platform::FileDescriptor events_;
    mutable std::mutex mutex_;
    std::map<FileIdentity, OpenFile> files_;
    std::map<int, FileIdentity> watched_;
    std::vector<int> closed_; ///< watches
};

} // namespace moat::run
