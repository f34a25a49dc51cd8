// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/path_calls.hpp"

#include "run/sysfs_tree.hpp"

#include <algorithm>
#include <filesystem>

namespace moat::run {

namespace {

/// The soft devices' alone: this machine's are not seen.
[[nodiscard]] bool is_replaced(const std::string& path) {
    return std::ranges::any_of(tree_folders, [&](std::string_view folder) {
        return path.starts_with(folder) &&
               (path.size() == folder.size() || path[folder.size()] == '/');
    });
}

} // namespace

std::string seen_path(const std::string& path, const Options& options) {
    const bool below = path.starts_with(options.folder + '/');
    return options.redirect && below ? path.substr(options.folder.size()) : path;
}

std::optional<std::string> redirected_path(const std::string& path, const Options& options) {
    if (!options.redirect)
        return std::nullopt;
    const std::string moved = options.folder + path;
    std::error_code ignored;
    const bool leads =
        is_replaced(path) || (path.starts_with("/sys/") && std::filesystem::exists(moved, ignored));
    return leads ? std::optional(moved) : std::nullopt;
}

} // namespace moat::run
