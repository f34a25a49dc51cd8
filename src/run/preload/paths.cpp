// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/paths.hpp"

#include "run/preload/process.hpp"
#include "run/sysfs_tree.hpp"

#include <algorithm>
#include <cstring>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::run {

namespace {

/// Without doubled slashes at its beginning.
[[nodiscard]] std::string_view trimmed(const char* path) {
    while (path[0] == '/' && path[1] == '/')
        ++path;
    return path;
}

[[nodiscard]] bool begins(std::string_view path, std::string_view prefix) {
    if (!path.starts_with(prefix))
        return false;
    const char next = path.size() == prefix.size() ? '\0' : path[prefix.size()];
    return next == '\0' || next == '/';
}

/// The soft devices' alone: this machine's are not seen.
[[nodiscard]] bool is_replaced(std::string_view path) {
    return std::ranges::any_of(tree_folders,
                               [&](std::string_view folder) { return begins(path, folder); });
}

} // namespace

bool is_vfio_file(const char* path) {
    if (path == nullptr || options() == nullptr)
        return false;
    const std::string_view text = trimmed(path);
    return begins(text, "/dev/vfio") || text == "/dev/iommu";
}

Redirected::Redirected(const char* path) : path_(path) {
    if (path == nullptr || options() == nullptr || !options()->redirect || Inside::here())
        return;
    const std::string_view text = trimmed(path);
    const bool always = is_replaced(text);
    const std::string& folder = options()->folder;
    if ((!always && !text.starts_with("/sys/")) || folder.size() + text.size() >= buffer_.size())
        return;
    std::ranges::copy(folder, buffer_.begin());
    buffer_[folder.size() + text.copy(buffer_.data() + folder.size(), text.size())] = '\0';
    if (always || syscall(SYS_access, buffer_.data(), F_OK) == 0)
        path_ = buffer_.data();
}

std::size_t folder_in(std::string_view path) {
    if (options() == nullptr || !options()->redirect || Inside::here())
        return 0;
    const std::string& folder = options()->folder;
    const bool below = !folder.empty() && path.size() > folder.size() && path.starts_with(folder) &&
                       path[folder.size()] == '/';
    return below ? folder.size() : 0;
}

} // namespace moat::run
