// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// libc's functions that no header declares any more, or only with _FORTIFY_SOURCE.
#pragma once

#include <cstddef>
#include <sys/stat.h>
#include <sys/types.h>

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
extern "C" {
int __open_2(const char* path, int flags);
int __open64_2(const char* path, int flags);
int __openat_2(int folder, const char* path, int flags);
int __openat64_2(int folder, const char* path, int flags);
int __xstat(int version, const char* path, struct stat* into);
int __lxstat(int version, const char* path, struct stat* into);
int __xstat64(int version, const char* path, struct stat64* into);
int __lxstat64(int version, const char* path, struct stat64* into);
int __fxstatat(int version, int folder, const char* path, struct stat* into, int flags);
int __fxstatat64(int version, int folder, const char* path, struct stat64* into, int flags);
ssize_t __readlink_chk(const char* path, char* into, std::size_t bytes, std::size_t room);
ssize_t __readlinkat_chk(int folder, const char* path, char* into, std::size_t bytes,
                         std::size_t room);
char* __realpath_chk(const char* path, char* into, std::size_t room);
ssize_t __read_chk(int descriptor, void* into, std::size_t bytes, std::size_t room);
ssize_t __pread_chk(int descriptor, void* into, std::size_t bytes, off_t offset, std::size_t room);
ssize_t __pread64_chk(int descriptor, void* into, std::size_t bytes, off64_t offset,
                      std::size_t room);
int __fxstat(int version, int descriptor, struct stat* into);
int __fxstat64(int version, int descriptor, struct stat64* into);
}
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)
