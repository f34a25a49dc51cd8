/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* One case for each function on paths that libmoat-run.so interposes. The tree has one device. */
#define _GNU_SOURCE
#include "client.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICES "/sys/bus/pci/devices"
#define DEVICE DEVICES "/" DEVICE_NAME
#define VENDOR DEVICE "/vendor"
#define LINK DEVICE "/iommu_group"
#define GROUP "/sys/kernel/iommu_groups/1280"

static void* named(const char* name) {
    return function_named(name);
}

typedef int stat_function(const char*, struct stat*);
typedef int xstat_function(int, const char*, struct stat*);

static void stats(const char* name, int of_link) {
    struct stat found;
    stat_function* const function = (stat_function*)named(name);
    REQUIRE(function(VENDOR, &found) == 0 && S_ISREG(found.st_mode));
    REQUIRE(function(LINK, &found) == 0 &&
            (of_link ? S_ISLNK(found.st_mode) : S_ISDIR(found.st_mode)));
    REQUIRE(function(DEVICES "/ffff:00:00.0", &found) == -1 && errno == ENOENT);
    REQUIRE(function("/dev/null", &found) == 0 && S_ISCHR(found.st_mode));
}

static void old_stats(const char* name, int of_link) {
    struct stat found;
    xstat_function* const function = (xstat_function*)named(name);
    REQUIRE(function(1, LINK, &found) == 0 &&
            (of_link ? S_ISLNK(found.st_mode) : S_ISDIR(found.st_mode)));
}

static void path_stat(void) {
    stats("stat", 0);
}

static void path_stat64(void) {
    stats("stat64", 0);
}

static void path_lstat(void) {
    stats("lstat", 1);
}

static void path_lstat64(void) {
    stats("lstat64", 1);
}

static void path_xstat(void) {
    old_stats("__xstat", 0);
}

static void path_xstat64(void) {
    old_stats("__xstat64", 0);
}

static void path_lxstat(void) {
    old_stats("__lxstat", 1);
}

static void path_lxstat64(void) {
    old_stats("__lxstat64", 1);
}

static void stats_at(const char* name) {
    struct stat found;
    REQUIRE(((int (*)(int, const char*, struct stat*, int))named(name))(AT_FDCWD, LINK, &found,
                                                                        AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISLNK(found.st_mode));
}

static void old_stats_at(const char* name) {
    struct stat found;
    REQUIRE(((int (*)(int, int, const char*, struct stat*, int))named(name))(1, AT_FDCWD, LINK,
                                                                             &found, 0) == 0 &&
            S_ISDIR(found.st_mode));
}

static void path_fstatat(void) {
    stats_at("fstatat");
}

static void path_fstatat64(void) {
    stats_at("fstatat64");
}

static void path_fxstatat(void) {
    old_stats_at("__fxstatat");
}

static void path_fxstatat64(void) {
    old_stats_at("__fxstatat64");
}

static void path_statx(void) {
    struct statx found;
    REQUIRE(statx(AT_FDCWD, VENDOR, 0, STATX_TYPE, &found) == 0 && S_ISREG(found.stx_mode));
}

static void accesses(const char* name) {
    int (*const function)(const char*, int) = (int (*)(const char*, int))named(name);
    REQUIRE(function(VENDOR, R_OK) == 0 && function("/sys/module/vfio_pci", F_OK) == 0);
    REQUIRE(function(DEVICES "/ffff:00:00.0", F_OK) == -1);
}

static void path_access(void) {
    accesses("access");
}

static void path_eaccess(void) {
    accesses("eaccess");
}

static void path_euidaccess(void) {
    accesses("euidaccess");
}

static void path_faccessat(void) {
    REQUIRE(faccessat(AT_FDCWD, VENDOR, R_OK, 0) == 0);
}

static void expect_group(const char* target, ssize_t size) {
    const char last[] = "/1280";
    const size_t length = sizeof last - 1;
    REQUIRE(size > (ssize_t)length);
    REQUIRE(memcmp(target + size - length, last, length) == 0);
}

static void path_readlink(void) {
    char target[PATH_MAX];
    expect_group(target, readlink(LINK, target, sizeof target));
    REQUIRE(readlink(LINK, target, 4) == 4 && readlink(VENDOR, target, 4) == -1);
    REQUIRE(readlink("/proc/self/exe", target, sizeof target) > 6);
}

static void path_readlinkat(void) {
    char target[PATH_MAX];
    expect_group(target, readlinkat(AT_FDCWD, LINK, target, sizeof target));
}

static void path_readlink_chk(void) {
    char target[PATH_MAX];
    ssize_t (*const function)(const char*, char*, size_t, size_t) =
        (ssize_t(*)(const char*, char*, size_t, size_t))named("__readlink_chk");
    expect_group(target, function(LINK, target, sizeof target, sizeof target));
}

static void path_readlinkat_chk(void) {
    char target[PATH_MAX];
    ssize_t (*const function)(int, const char*, char*, size_t, size_t) =
        (ssize_t(*)(int, const char*, char*, size_t, size_t))named("__readlinkat_chk");
    expect_group(target, function(AT_FDCWD, LINK, target, sizeof target, sizeof target));
}

static void path_realpath(void) {
    char target[PATH_MAX];
    REQUIRE(realpath(LINK, target) == target && strcmp(target, GROUP) == 0);
    char* const made = realpath(VENDOR, NULL);
    REQUIRE(made != NULL && strncmp(made, "/sys/", 5) == 0);
    free(made);
    REQUIRE(realpath(DEVICES "/none", NULL) == NULL);
}

static void path_realpath_chk(void) {
    char target[PATH_MAX];
    REQUIRE(((char* (*)(const char*, char*, size_t))named("__realpath_chk"))(
                LINK, target, sizeof target) == target &&
            strcmp(target, GROUP) == 0);
}

static void path_canonicalize_file_name(void) {
    char* const made = canonicalize_file_name(LINK);
    REQUIRE(made != NULL && strcmp(made, GROUP) == 0);
    free(made);
}

static void path_opendir(void) {
    DIR* const folder = opendir(DEVICES);
    REQUIRE(folder != NULL);
    int devices = 0;
    for (const struct dirent* each = readdir(folder); each != NULL; each = readdir(folder))
        if (each->d_name[0] != '.') {
            REQUIRE(strcmp(each->d_name, DEVICE_NAME) == 0);
            ++devices;
        }
    REQUIRE(devices == 1 && closedir(folder) == 0);
}

static int any_device(const struct dirent* each) {
    return each->d_name[0] != '.';
}

static void lists(const char* name) {
    struct dirent** list = NULL;
    REQUIRE(((int (*)(const char*, struct dirent***, int (*)(const struct dirent*), void*))named(
                name))(DEVICES, &list, any_device, NULL) == 1);
    REQUIRE(strcmp(list[0]->d_name, DEVICE_NAME) == 0);
    free(list[0]);
    free(list);
}

static void path_scandir(void) {
    lists("scandir");
}

static void path_scandir64(void) {
    lists("scandir64");
}

static void opens_stream(const char* name) {
    FILE* const file = ((FILE * (*)(const char*, const char*)) named(name))(VENDOR, "r");
    char line[16];
    REQUIRE(file != NULL && fgets(line, sizeof line, file) != NULL);
    REQUIRE(strncmp(line, "0x1234", 6) == 0 && fclose(file) == 0);
}

static void path_fopen(void) {
    opens_stream("fopen");
}

static void path_fopen64(void) {
    opens_stream("fopen64");
}

static void globs(const char* name) {
    glob_t found = {0};
    REQUIRE(((int (*)(const char*, int, void*, glob_t*))named(name))(DEVICES "/*", 0, NULL,
                                                                     &found) == 0);
    REQUIRE(found.gl_pathc == 1 && strcmp(found.gl_pathv[0], DEVICE) == 0);
    globfree(&found);
}

static void path_glob(void) {
    globs("glob");
}

static void path_glob64(void) {
    globs("glob64");
}

const struct test_case path_cases[] = {
    {"stat", path_stat},
    {"stat64", path_stat64},
    {"lstat", path_lstat},
    {"lstat64", path_lstat64},
    {"__xstat", path_xstat},
    {"__xstat64", path_xstat64},
    {"__lxstat", path_lxstat},
    {"__lxstat64", path_lxstat64},
    {"fstatat", path_fstatat},
    {"fstatat64", path_fstatat64},
    {"__fxstatat", path_fxstatat},
    {"__fxstatat64", path_fxstatat64},
    {"statx", path_statx},
    {"access", path_access},
    {"eaccess", path_eaccess},
    {"euidaccess", path_euidaccess},
    {"faccessat", path_faccessat},
    {"readlink", path_readlink},
    {"readlinkat", path_readlinkat},
    {"__readlink_chk", path_readlink_chk},
    {"__readlinkat_chk", path_readlinkat_chk},
    {"realpath", path_realpath},
    {"__realpath_chk", path_realpath_chk},
    {"canonicalize_file_name", path_canonicalize_file_name},
    {"opendir", path_opendir},
    {"scandir", path_scandir},
    {"scandir64", path_scandir64},
    {"fopen", path_fopen},
    {"fopen64", path_fopen64},
    {"glob", path_glob},
    {"glob64", path_glob64},
    {NULL, NULL},
};
