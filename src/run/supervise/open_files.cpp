// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A memory file has no name, so the kernel deletes its inode with the last descriptor and mapping;
// inotify tells. Source: inotify(7).
#include "run/supervise/open_files.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>

namespace moat::run {

OpenFiles::OpenFiles() : events_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {}

bool OpenFiles::add(pid_t process, int descriptor, File file) {
    // Its own descriptor: the program's other threads may close theirs meanwhile.
    const platform::FileDescriptor held(
        ::open(descriptor_path(process, descriptor).c_str(), O_PATH | O_CLOEXEC));
    struct stat status = {};
    if (held.get() < 0 || ::fstat(held.get(), &status) != 0)
        return false;
    const int watch = ::inotify_add_watch(
        events_.get(), descriptor_path(::getpid(), held.get()).c_str(), IN_DELETE_SELF);
    const FileIdentity identity{.device = status.st_dev, .inode = status.st_ino};
    const std::lock_guard lock(mutex_);
    files_[identity] = {.identity = identity, .process = process, .file = file};
    watched_[watch] = identity;
    return true;
}

std::optional<OpenFile> OpenFiles::find(const FileIdentity& identity) const {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(identity);
    return found == files_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<OpenFile> OpenFiles::find(pid_t process, int descriptor) const {
    if (descriptor < 0)
        return std::nullopt;
    const auto identity = identify(process, descriptor);
    return identity ? find(*identity) : std::nullopt;
}

void OpenFiles::disown(pid_t process) {
    const std::lock_guard lock(mutex_);
    for (auto& [identity, open] : files_)
        if (open.process == process)
            open.process = 0;
}

void OpenFiles::set_position(const FileIdentity& identity, std::uint64_t position) {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(identity);
    if (found != files_.end())
        found->second.position = position;
}

void OpenFiles::read_events() {
    alignas(inotify_event) std::array<char, 4096> buffer; // NOLINT(*-member-init): read below
    ssize_t size = 0;
    while ((size = ::read(events_.get(), buffer.data(), buffer.size())) > 0)
        for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
            inotify_event event{};
            std::memcpy(&event, buffer.data() + at, sizeof event);
            if ((event.mask & IN_DELETE_SELF) != 0)
                closed_.push_back(event.wd);
            at += sizeof event + event.len;
        }
}

std::optional<OpenFile> OpenFiles::take_closed() {
    const std::lock_guard lock(mutex_);
    if (closed_.empty())
        read_events();
    while (!closed_.empty()) {
        const auto watch = watched_.find(closed_.back());
        closed_.pop_back();
        if (watch == watched_.end())
            continue;
        const auto file = files_.extract(watch->second);
        watched_.erase(watch);
        if (!file.empty())
            return file.mapped();
    }
    return std::nullopt;
}

} // namespace moat::run
