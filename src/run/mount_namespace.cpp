// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tree's folders are bound over the machine's. Where the machine lacks one, a tmpfs replaces
// its parent: every entry of the parent is bound there again, and the tree's folder beside them.
// Source: mount(2), user_namespaces(7), mount_namespaces(7).
#include "run/mount_namespace.hpp"

#include "run/sysfs_tree.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace moat::run {

namespace {

namespace fs = std::filesystem;
using Outcome = std::expected<void, std::string>;

[[nodiscard]] std::unexpected<std::string> failed(const std::string& step) {
    return std::unexpected(step + ": " + std::strerror(errno));
}

[[nodiscard]] bool write_text(const char* path, const std::string& text) {
    const int file = ::open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    const bool done = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(file);
    return done;
}

[[nodiscard]] Outcome bind(const fs::path& from, const fs::path& to) {
    if (::mount(from.c_str(), to.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0)
        return failed("bind " + from.string() + " to " + to.string());
    return {};
}

/// The user and group, mapped to themselves.
[[nodiscard]] Outcome enter_user_namespace() {
    const uid_t user = ::getuid();
    const gid_t group = ::getgid();
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0)
        return failed("unshare");
    const auto line = [](unsigned id) {
        return std::to_string(id) + ' ' + std::to_string(id) + " 1\n";
    };
    if (!write_text("/proc/self/setgroups", "deny") ||
        !write_text("/proc/self/uid_map", line(user)) ||
        !write_text("/proc/self/gid_map", line(group)))
        return failed("map the user");
    return {};
}

/// Makes an entry of the kind of `like` that can be bound over.
[[nodiscard]] Outcome make_place(const fs::path& like, const fs::path& place) {
    const bool made =
        fs::is_directory(like)
            ? ::mkdir(place.c_str(), 0755) == 0
            : ::close(::open(place.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644)) == 0;
    if (!made)
        return failed("make " + place.string());
    return {};
}

/// Lets `parent` keep its entries and gain those of `added`, by a tmpfs. `spare` is an empty
/// folder.
[[nodiscard]] Outcome extend(const fs::path& parent, const std::vector<fs::path>& added,
                             const fs::path& spare) {
    if (::mount("moat", spare.c_str(), "tmpfs", 0, "mode=0755") != 0)
        return failed("mount a tmpfs");
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(parent, error)) {
        const fs::path place = spare / entry.path().filename();
        if (entry.is_symlink()) {
            fs::copy_symlink(entry.path(), place, error);
            continue;
        }
        MOAT_TRY(make_place(entry.path(), place));
        MOAT_TRY(bind(entry.path(), place));
    }
    if (error)
        return std::unexpected("read " + parent.string() + ": " + error.message());
    for (const fs::path& each : added) {
        const fs::path place = spare / each.filename();
        MOAT_TRY(make_place(each, place));
        MOAT_TRY(bind(each, place));
    }
    if (::mount(spare.c_str(), parent.c_str(), nullptr, MS_MOVE, nullptr) != 0)
        return failed("move to " + parent.string());
    return {};
}

} // namespace

Outcome enter_mount_namespace(const std::string& folder) {
    if (::unshare(CLONE_NEWNS) != 0)
        MOAT_TRY(enter_user_namespace());
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return failed("make mounts private");
    const fs::path spare = fs::path(folder) / "spare";
    std::error_code ignored;
    fs::create_directory(spare, ignored);
    std::vector<fs::path> parents;
    for (const std::string_view each : tree_folders) {
        const fs::path real(each);
        const fs::path ours = folder + std::string(each);
        if (fs::exists(real)) {
            MOAT_TRY(bind(ours, real));
        } else if (parents.empty() || parents.back() != real.parent_path()) {
            std::vector<fs::path> added;
            for (const std::string_view other : tree_folders)
                if (fs::path(other).parent_path() == real.parent_path() && !fs::exists(other))
                    added.push_back(folder + std::string(other));
            MOAT_TRY(extend(real.parent_path(), added, spare));
            parents.push_back(real.parent_path());
        }
    }
    return {};
}

bool can_mount(const std::string& folder) {
    const pid_t child = ::fork();
    if (child == 0)
        ::_exit(enter_mount_namespace(folder) ? 0 : 1);
    int status = 0;
    while (child > 0 && ::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

} // namespace moat::run
