// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// libc's functions on paths, redirected to the soft devices' files. What they return shows no
// trace of that.
#include "run/preload/libc_names.hpp"
#include "run/preload/next.hpp"
#include "run/preload/paths.hpp"
#include "run/preload/process.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

using namespace moat::run;

namespace {

/// Removes the folder from a string that libc wrote.
char* without_folder(char* path) {
    if (path == nullptr)
        return nullptr;
    const std::size_t skipped = folder_in(path);
    if (skipped != 0)
        std::memmove(path, path + skipped, std::strlen(path) - skipped + 1);
    return path;
}

/// readlink's buffer gets what fits of the target, so the whole is read first.
template <class Next>
ssize_t read_link(char* into, std::size_t bytes, Next next) {
    if (options() == nullptr || !options()->redirect)
        return next(into, bytes);
    std::array<char, PATH_MAX> whole{};
    const ssize_t size = next(whole.data(), whole.size());
    if (size < 0)
        return size;
    std::string_view target(whole.data(), static_cast<std::size_t>(size));
    target.remove_prefix(folder_in(target));
    if (bytes == 0 || into == nullptr)
        return next(into, bytes);
    return static_cast<ssize_t>(target.copy(into, bytes));
}

template <class Glob, class Next>
int glob_any(const char* pattern, int flags, Glob* found, Next next) {
    const std::size_t first = (flags & GLOB_DOOFFS) != 0 ? found->gl_offs : 0;
    const int result = next(Redirected(pattern).get());
    if (result == 0)
        for (std::size_t i = 0; i < found->gl_pathc; ++i)
            (void)without_folder(found->gl_pathv[first + i]);
    return result;
}

} // namespace

MOAT_INTERPOSED int stat(const char* path, struct stat* into) noexcept {
    return MOAT_NEXT(stat)(Redirected(path).get(), into);
}

MOAT_INTERPOSED int stat64(const char* path, struct stat64* into) noexcept {
    return MOAT_NEXT(stat64)(Redirected(path).get(), into);
}

MOAT_INTERPOSED int lstat(const char* path, struct stat* into) noexcept {
    return MOAT_NEXT(lstat)(Redirected(path).get(), into);
}

MOAT_INTERPOSED int lstat64(const char* path, struct stat64* into) noexcept {
    return MOAT_NEXT(lstat64)(Redirected(path).get(), into);
}

MOAT_INTERPOSED int fstatat(int folder, const char* path, struct stat* into, int flags) noexcept {
    return MOAT_NEXT(fstatat)(folder, Redirected(path).get(), into, flags);
}

MOAT_INTERPOSED int fstatat64(int folder, const char* path, struct stat64* into,
                              int flags) noexcept {
    return MOAT_NEXT(fstatat64)(folder, Redirected(path).get(), into, flags);
}

MOAT_INTERPOSED int statx(int folder, const char* path, int flags, unsigned mask,
                          struct statx* into) noexcept {
    return MOAT_NEXT(statx)(folder, Redirected(path).get(), flags, mask, into);
}

MOAT_INTERPOSED int __xstat(int version, const char* path, struct stat* into) {
    return MOAT_NEXT(__xstat)(version, Redirected(path).get(), into);
}

MOAT_INTERPOSED int __xstat64(int version, const char* path, struct stat64* into) {
    return MOAT_NEXT(__xstat64)(version, Redirected(path).get(), into);
}

MOAT_INTERPOSED int __lxstat(int version, const char* path, struct stat* into) {
    return MOAT_NEXT(__lxstat)(version, Redirected(path).get(), into);
}

MOAT_INTERPOSED int __lxstat64(int version, const char* path, struct stat64* into) {
    return MOAT_NEXT(__lxstat64)(version, Redirected(path).get(), into);
}

MOAT_INTERPOSED int __fxstatat(int version, int folder, const char* path, struct stat* into,
                               int flags) {
    return MOAT_NEXT(__fxstatat)(version, folder, Redirected(path).get(), into, flags);
}

MOAT_INTERPOSED int __fxstatat64(int version, int folder, const char* path, struct stat64* into,
                                 int flags) {
    return MOAT_NEXT(__fxstatat64)(version, folder, Redirected(path).get(), into, flags);
}

MOAT_INTERPOSED int access(const char* path, int mode) noexcept {
    return MOAT_NEXT(access)(Redirected(path).get(), mode);
}

MOAT_INTERPOSED int faccessat(int folder, const char* path, int mode, int flags) noexcept {
    return MOAT_NEXT(faccessat)(folder, Redirected(path).get(), mode, flags);
}

MOAT_INTERPOSED int euidaccess(const char* path, int mode) noexcept {
    return MOAT_NEXT(euidaccess)(Redirected(path).get(), mode);
}

MOAT_INTERPOSED int eaccess(const char* path, int mode) noexcept {
    return MOAT_NEXT(eaccess)(Redirected(path).get(), mode);
}

MOAT_INTERPOSED ssize_t readlink(const char* path, char* into, std::size_t bytes) noexcept {
    const Redirected at(path);
    return read_link(into, bytes, [&](char* to, std::size_t size) {
        return MOAT_NEXT(readlink)(at.get(), to, size);
    });
}

MOAT_INTERPOSED ssize_t readlinkat(int folder, const char* path, char* into,
                                   std::size_t bytes) noexcept {
    const Redirected at(path);
    return read_link(into, bytes, [&](char* to, std::size_t size) {
        return MOAT_NEXT(readlinkat)(folder, at.get(), to, size);
    });
}

MOAT_INTERPOSED ssize_t __readlink_chk(const char* path, char* into, std::size_t bytes,
                                       std::size_t room) {
    return bytes <= room ? readlink(path, into, bytes)
                         : MOAT_NEXT(__readlink_chk)(path, into, bytes, room);
}

MOAT_INTERPOSED ssize_t __readlinkat_chk(int folder, const char* path, char* into,
                                         std::size_t bytes, std::size_t room) {
    return bytes <= room ? readlinkat(folder, path, into, bytes)
                         : MOAT_NEXT(__readlinkat_chk)(folder, path, into, bytes, room);
}

MOAT_INTERPOSED char* realpath(const char* path, char* into) noexcept {
    return without_folder(MOAT_NEXT(realpath)(Redirected(path).get(), into));
}

MOAT_INTERPOSED char* __realpath_chk(const char* path, char* into, std::size_t room) {
    return without_folder(MOAT_NEXT(__realpath_chk)(Redirected(path).get(), into, room));
}

MOAT_INTERPOSED char* canonicalize_file_name(const char* path) noexcept {
    return without_folder(MOAT_NEXT(canonicalize_file_name)(Redirected(path).get()));
}

MOAT_INTERPOSED DIR* opendir(const char* path) {
    return MOAT_NEXT(opendir)(Redirected(path).get());
}

MOAT_INTERPOSED int scandir(const char* path, struct dirent*** list,
                            int (*select)(const struct dirent*),
                            int (*order)(const struct dirent**, const struct dirent**)) {
    return MOAT_NEXT(scandir)(Redirected(path).get(), list, select, order);
}

MOAT_INTERPOSED int scandir64(const char* path, struct dirent64*** list,
                              int (*select)(const struct dirent64*),
                              int (*order)(const struct dirent64**, const struct dirent64**)) {
    return MOAT_NEXT(scandir64)(Redirected(path).get(), list, select, order);
}

MOAT_INTERPOSED FILE* fopen(const char* path, const char* mode) {
    return MOAT_NEXT(fopen)(Redirected(path).get(), mode);
}

MOAT_INTERPOSED FILE* fopen64(const char* path, const char* mode) {
    return MOAT_NEXT(fopen64)(Redirected(path).get(), mode);
}

MOAT_INTERPOSED int glob(const char* pattern, int flags, int (*on_error)(const char*, int),
                         glob_t* found) noexcept {
    return glob_any(pattern, flags, found,
                    [&](const char* at) { return MOAT_NEXT(glob)(at, flags, on_error, found); });
}

MOAT_INTERPOSED int glob64(const char* pattern, int flags, int (*on_error)(const char*, int),
                           glob64_t* found) noexcept {
    return glob_any(pattern, flags, found,
                    [&](const char* at) { return MOAT_NEXT(glob64)(at, flags, on_error, found); });
}
