// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Paths of /sys and /dev that lead to the soft devices, where no mount namespace does that.
#pragma once

#include <array>
#include <climits>
#include <cstddef>
#include <span>
#include <string_view>

namespace moat::run {

/// Return: whether a Session is to be asked for `path`.
[[nodiscard]] bool is_vfio_file(const char* path);

/// A path as libc gets it: below the command's folder, if the soft devices' files lie there.
class Redirected {
  public:
    explicit Redirected(const char* path);
    Redirected(const Redirected&) = delete;
    Redirected& operator=(const Redirected&) = delete;

    [[nodiscard]] const char* get() const { return path_; }

  private:
    const char* path_;
    std::array<char, PATH_MAX> buffer_; // NOLINT(*-member-init): of a redirected path only
};

/// How many characters at the beginning of a path that libc returned are to be removed: the folder.
[[nodiscard]] std::size_t folder_in(std::string_view path);

} // namespace moat::run
