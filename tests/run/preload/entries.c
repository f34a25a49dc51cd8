/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* One case for each function on descriptors, memory and signals that libmoat-run.so interposes. */
#define _GNU_SOURCE
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define CONTAINER "/dev/vfio/vfio"

static void expect_container(int descriptor) {
    REQUIRE(descriptor >= 0 && ioctl(descriptor, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
    REQUIRE(close(descriptor) == 0);
}

typedef int open_function(const char*, int, ...);
typedef int openat_function(int, const char*, int, ...);

static void opens(const char* name) {
    expect_container(((open_function*)function_named(name))(CONTAINER, O_RDWR));
    const int other = ((open_function*)function_named(name))("/dev/null", O_RDONLY);
    REQUIRE(other >= 0 && ioctl(other, VFIO_GET_API_VERSION) == -1 && close(other) == 0);
}

static void opens_at(const char* name) {
    expect_container(((openat_function*)function_named(name))(AT_FDCWD, CONTAINER, O_RDWR));
}

static void entry_open(void) {
    opens("open");
    char path[] = "/tmp/moat-client-XXXXXX"; /* the mode is passed on */
    REQUIRE(close(mkstemp(path)) == 0 && unlink(path) == 0);
    const int made = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);
    REQUIRE(made >= 0 && access(path, R_OK | W_OK) == 0 && unlink(path) == 0 && close(made) == 0);
    REQUIRE(open("/dev/vfio/99", O_RDWR) == -1 && errno == ENOENT);
    REQUIRE(open("//dev//vfio/none", O_RDWR) == -1);
}

static void entry_open64(void) {
    opens("open64");
}

static void entry_openat(void) {
    opens_at("openat");
}

static void entry_openat64(void) {
    opens_at("openat64");
}

static void entry_open_2(void) {
    opens("__open_2");
}

static void entry_open64_2(void) {
    opens("__open64_2");
}

static void entry_openat_2(void) {
    opens_at("__openat_2");
}

static void entry_openat64_2(void) {
    opens_at("__openat64_2");
}

static void entry_close(void) {
    const int group = open_group(0);
    open_group(EBUSY); /* one open at a time, as Linux */
    REQUIRE(close(group) == 0);
    REQUIRE(close(open_group(0)) == 0);
}

static void entry_close_range(void) {
    const int group = open_group(0);
    const int null = open("/dev/null", O_RDONLY);
    REQUIRE(close_range((unsigned)group, (unsigned)null, CLOSE_RANGE_CLOEXEC) == 0);
    open_group(EBUSY);
    REQUIRE(close_range((unsigned)group, (unsigned)null, 0) == 0);
    REQUIRE(close(null) == -1 && errno == EBADF);
    REQUIRE(close(open_group(0)) == 0);
}

static void entry_closefrom(void) {
    struct device device = open_device();
    closefrom(3);
    REQUIRE(device.bar[reg_identity] == identity);
    REQUIRE(ioctl(device.container, VFIO_GET_API_VERSION) == -1 && errno == EBADF);
    REQUIRE(munmap((void*)device.bar, bar_bytes) == 0);
    device = open_device();
    close_device(&device);
}

/* The copy keeps the group open. */
static void expect_copy(int group, int copy) {
    struct vfio_group_status status = {.argsz = sizeof status};
    REQUIRE(copy >= 0 && copy != group && close(group) == 0);
    REQUIRE(ioctl(copy, VFIO_GROUP_GET_STATUS, &status) == 0);
    open_group(EBUSY);
    REQUIRE(close(copy) == 0);
    REQUIRE(close(open_group(0)) == 0);
}

static void entry_dup(void) {
    const int group = open_group(0);
    expect_copy(group, dup(group));
}

static void entry_dup2(void) {
    const int group = open_group(0);
    const int target = open(CONTAINER, O_RDWR);
    REQUIRE(dup2(group, group) == group && dup2(group, target) == target);
    expect_copy(group, target);
    const int other = open_group(0); /* ended by what takes its place */
    const int null = open("/dev/null", O_RDONLY);
    REQUIRE(dup2(null, other) == other && close(open_group(0)) == 0);
    REQUIRE(dup2(-1, other) == -1 && close(other) == 0 && close(null) == 0);
}

static void entry_dup3(void) {
    const int group = open_group(0);
    expect_copy(group, dup3(group, 200, O_CLOEXEC));
}

static void copied_by_fcntl(const char* name) {
    int (*const function)(int, int, ...) = (int (*)(int, int, ...))function_named(name);
    int group = open_group(0);
    REQUIRE(function(group, F_GETFD) == FD_CLOEXEC);
    expect_copy(group, function(group, F_DUPFD, 100));
    group = open_group(0);
    expect_copy(group, function(group, F_DUPFD_CLOEXEC, 100));
}

static void entry_fcntl(void) {
    copied_by_fcntl("fcntl");
}

static void entry_fcntl64(void) {
    copied_by_fcntl("fcntl64");
}

static void entry_ioctl(void) {
    const int container = open(CONTAINER, O_RDWR);
    REQUIRE(ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1);
    REQUIRE(ioctl(container, FIOCLEX) == 0 && fcntl(container, F_GETFD) == FD_CLOEXEC);
    REQUIRE(ioctl(container, VFIO_IOMMU_MAP_DMA, 8) == -1);
    struct vfio_group_status* const nowhere = (struct vfio_group_status*)8;
    const int group = open_group(0);
    REQUIRE(ioctl(group, VFIO_GROUP_GET_STATUS, nowhere) == -1 && errno == EFAULT);
    REQUIRE(close(group) == 0 && close(container) == 0);
}

typedef void* mmap_function(void*, size_t, int, int, int, off_t);

static void maps(const char* name) {
    mmap_function* const function = (mmap_function*)function_named(name);
    struct device device = open_device();
    volatile uint32_t* const bar =
        function(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, device.device, 0);
    REQUIRE(bar != MAP_FAILED && bar[reg_identity] == identity);
    REQUIRE(function(NULL, 4096, PROT_READ, MAP_PRIVATE, device.device, 0) == MAP_FAILED);
    REQUIRE(function(NULL, 2 * bar_bytes, PROT_READ, MAP_SHARED, device.device, 0) == MAP_FAILED);
    REQUIRE(function(NULL, 4096, PROT_READ, MAP_SHARED, device.container, 0) == MAP_FAILED);
    /* Other memory takes the place. */
    volatile uint32_t* const memory = function((void*)bar, 4096, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    REQUIRE(memory == bar && bar[reg_identity] == 0);
    REQUIRE(munmap((void*)memory, 4096) == 0);
    close_device(&device);
}

static void entry_mmap(void) {
    maps("mmap");
}

static void entry_mmap64(void) {
    maps("mmap64");
}

static void entry_munmap(void) {
    struct device device = open_device();
    close_device(&device);
    REQUIRE(close(open_group(0)) == 0);
}

static void entry_mremap(void) {
    struct device device = open_device();
    void* const moved = mremap((void*)device.bar, bar_bytes, 4096, MREMAP_MAYMOVE);
    REQUIRE(moved == (void*)device.bar && device.bar[reg_identity] == identity);
    REQUIRE(mremap(moved, 4096, 8192, MREMAP_MAYMOVE) == MAP_FAILED);
    void* const place = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mremap(moved, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place);
    REQUIRE(*(volatile uint32_t*)place == identity);
    REQUIRE(munmap(place, 4096) == 0 && close(device.device) == 0 && close(device.group) == 0);
    REQUIRE(close(device.container) == 0 && close(open_group(0)) == 0);
    char* const memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(mremap(memory, 4096, 8192, MREMAP_MAYMOVE) != MAP_FAILED);
}

static void entry_mprotect(void) {
    struct device device = open_device();
    REQUIRE(mprotect((void*)device.bar, 4096, PROT_READ | PROT_WRITE) == 0);
    REQUIRE(device.bar[reg_identity] == identity);
    close_device(&device);
}

static const off_t config = (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40;

static void reads(const char* name, int has_room) {
    void* const function = function_named(name);
    struct device device = open_device();
    uint16_t vendor = 0;
    if (has_room)
        REQUIRE(((ssize_t(*)(int, void*, size_t, off_t, size_t))function)(device.device, &vendor, 2,
                                                                          config, 2) == 2);
    else
        REQUIRE(((ssize_t(*)(int, void*, size_t, off_t))function)(device.device, &vendor, 2,
                                                                  config) == 2);
    REQUIRE(vendor == 0x1234);
    void* volatile const nowhere = (void*)8;
    REQUIRE(pread(device.device, nowhere, 2, config) == -1 && errno == EFAULT);
    close_device(&device);
}

static void entry_pread(void) {
    reads("pread", 0);
}

static void entry_pread64(void) {
    reads("pread64", 0);
}

static void entry_pread_chk(void) {
    reads("__pread_chk", 1);
}

static void entry_pread64_chk(void) {
    reads("__pread64_chk", 1);
}

static void writes(const char* name) {
    ssize_t (*const function)(int, const void*, size_t, off_t) =
        (ssize_t(*)(int, const void*, size_t, off_t))function_named(name);
    struct device device = open_device();
    const uint32_t value = 0x1122;
    REQUIRE(function(device.device, &value, 4, 4 * reg_source) == 4);
    REQUIRE(device.bar[reg_source] == value);
    void* volatile const nowhere = (void*)8;
    REQUIRE(function(device.device, nowhere, 4, 0) == -1 && errno == EFAULT);
    close_device(&device);
}

static void entry_pwrite(void) {
    writes("pwrite");
}

static void entry_pwrite64(void) {
    writes("pwrite64");
}

static ssize_t any_read(const char* name, int device, void* into, size_t bytes) {
    if (strcmp(name, "read") == 0)
        return read(device, into, bytes);
    return ((ssize_t(*)(int, void*, size_t, size_t))function_named(name))(device, into, bytes,
                                                                          bytes);
}

/* At the position, which read and write move. */
static void reads_on(const char* name) {
    struct device device = open_device();
    uint32_t value = 0;
    REQUIRE(any_read(name, device.device, &value, 4) == 4 && value == identity);
    device.bar[reg_liveness] = 0x1111;
    REQUIRE(any_read(name, device.device, &value, 4) == 4 && value == ~0x1111U);
    REQUIRE(any_read(name, device.container, &value, 4) == -1 && errno == EINVAL);
    int ends[2];
    REQUIRE(pipe(ends) == 0 && write(ends[1], "a", 1) == 1);
    REQUIRE(any_read(name, ends[0], &value, 4) == 1 && (char)value == 'a');
    close_device(&device);
}

static void entry_read(void) {
    reads_on("read");
}

static void entry_read_chk(void) {
    reads_on("__read_chk");
}

static void entry_write(void) {
    struct device device = open_device();
    uint32_t value = 0;
    REQUIRE(read(device.device, &value, 4) == 4);
    value = 0x1111;
    REQUIRE(write(device.device, &value, 4) == 4 && device.bar[reg_liveness] == ~0x1111U);
    close_device(&device);
}

static void seeks(const char* name) {
    off_t (*const function)(int, off_t, int) = (off_t(*)(int, off_t, int))function_named(name);
    struct device device = open_device();
    REQUIRE(function(device.device, 0, SEEK_SET) == -1 && errno == ESPIPE);
    char path[] = "/tmp/moat-client-XXXXXX";
    const int file = mkstemp(path);
    REQUIRE(unlink(path) == 0 && function(file, 7, SEEK_SET) == 7 && close(file) == 0);
    close_device(&device);
}

static void entry_lseek(void) {
    seeks("lseek");
}

static void entry_lseek64(void) {
    seeks("lseek64");
}

typedef ssize_t pieces_function(int, const struct iovec*, int, off_t);

static void pieces(const char* reader, const char* writer) {
    struct device device = open_device();
    uint64_t values[2] = {0x11, 0x22};
    const struct iovec two[2] = {{&values[0], 8}, {&values[1], 8}};
    REQUIRE(((pieces_function*)function_named(writer))(device.device, two, 2, 4 * reg_source) ==
            16);
    REQUIRE(device.bar[reg_source] == 0x11 && device.bar[reg_target] == 0x22);
    values[0] = values[1] = 0;
    REQUIRE(((pieces_function*)function_named(reader))(device.device, two, 2, 4 * reg_source) ==
            16);
    REQUIRE(values[0] == 0x11 && values[1] == 0x22);
    close_device(&device);
}

static void entry_preadv(void) {
    pieces("preadv", "pwritev");
}

static void entry_preadv64(void) {
    pieces("preadv64", "pwritev64");
}

static void stats_descriptor(const char* name, int has_version) {
    struct device device = open_device();
    struct stat found;
    void* const function = function_named(name);
    REQUIRE((has_version ? ((int (*)(int, int, struct stat*))function)(1, device.device, &found)
                         : ((int (*)(int, struct stat*))function)(device.device, &found)) == 0);
    REQUIRE(S_ISCHR(found.st_mode) && found.st_rdev == makedev(511, 0));
    close_device(&device);
}

static void entry_fstat(void) {
    stats_descriptor("fstat", 0);
}

static void entry_fstat64(void) {
    stats_descriptor("fstat64", 0);
}

static void entry_fxstat(void) {
    stats_descriptor("__fxstat", 1);
}

static void entry_fxstat64(void) {
    stats_descriptor("__fxstat64", 1);
}

static sigjmp_buf back;
static volatile int handled;

static void handler(int number) {
    handled = number;
    siglongjmp(back, 1);
}

/* The program's fault reaches its handler; the region is still served. */
static void expect_handled(const struct device* device) {
    handled = 0;
    if (sigsetjmp(back, 1) == 0)
        *(volatile char*)16 = 1;
    REQUIRE(handled == SIGSEGV && device->bar[reg_identity] == identity);
}

static void entry_sigaction(void) {
    struct device device = open_device();
    struct sigaction action = {.sa_handler = handler};
    struct sigaction old;
    REQUIRE(sigaction(SIGSEGV, &action, &old) == 0 && old.sa_handler == SIG_DFL);
    expect_handled(&device);
    expect_handled(&device);
    action.sa_flags = (int)SA_RESETHAND;
    REQUIRE(sigaction(SIGSEGV, &action, &old) == 0 && old.sa_handler == handler);
    expect_handled(&device);
    REQUIRE(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
    sigfillset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
    REQUIRE(sigaction(SIGUSR1, NULL, &old) == 0 && old.sa_handler == handler);
    close_device(&device);
}

static void sets_handler(const char* name, sighandler_t after) {
    sighandler_t (*const function)(int, sighandler_t) =
        (sighandler_t(*)(int, sighandler_t))function_named(name);
    struct device device = open_device();
    REQUIRE(function(SIGSEGV, handler) == SIG_DFL);
    expect_handled(&device);
    REQUIRE(function(SIGSEGV, SIG_DFL) == after);
    REQUIRE(function(SIGBUS, handler) == SIG_DFL && function(SIGBUS, SIG_DFL) == handler);
    REQUIRE(function(SIGUSR1, handler) == SIG_DFL && function(SIGUSR1, SIG_IGN) == handler);
    close_device(&device);
}

static void entry_signal(void) {
    sets_handler("signal", handler);
}

static void entry_bsd_signal(void) {
    sets_handler("bsd_signal", handler);
}

static void entry_ssignal(void) {
    sets_handler("ssignal", handler);
}

/* System V's handlers are for once. */
static void entry_sysv_signal(void) {
    sets_handler("sysv_signal", SIG_DFL);
}

static void entry__sysv_signal(void) {
    sets_handler("__sysv_signal", SIG_DFL);
}

static void blocks(const char* name) {
    int (*const function)(int, const sigset_t*, sigset_t*) =
        (int (*)(int, const sigset_t*, sigset_t*))function_named(name);
    struct device device = open_device();
    sigset_t all;
    sigset_t now;
    sigfillset(&all);
    REQUIRE(function(SIG_SETMASK, &all, NULL) == 0);
    REQUIRE(device.bar[reg_identity] == identity);
    REQUIRE(function(SIG_BLOCK, NULL, &now) == 0);
    REQUIRE(sigismember(&now, SIGTERM) == 1 && sigismember(&now, SIGSEGV) == 0 &&
            sigismember(&now, SIGBUS) == 0);
    REQUIRE(function(SIG_UNBLOCK, &all, NULL) == 0 && function(SIG_BLOCK, NULL, &now) == 0);
    REQUIRE(sigismember(&now, SIGTERM) == 0);
    close_device(&device);
}

static void entry_pthread_sigmask(void) {
    blocks("pthread_sigmask");
}

static void entry_sigprocmask(void) {
    blocks("sigprocmask");
}

const struct test_case entry_cases[] = {
    {"open", entry_open},
    {"open64", entry_open64},
    {"openat", entry_openat},
    {"openat64", entry_openat64},
    {"__open_2", entry_open_2},
    {"__open64_2", entry_open64_2},
    {"__openat_2", entry_openat_2},
    {"__openat64_2", entry_openat64_2},
    {"close", entry_close},
    {"close_range", entry_close_range},
    {"closefrom", entry_closefrom},
    {"dup", entry_dup},
    {"dup2", entry_dup2},
    {"dup3", entry_dup3},
    {"fcntl", entry_fcntl},
    {"fcntl64", entry_fcntl64},
    {"ioctl", entry_ioctl},
    {"mmap", entry_mmap},
    {"mmap64", entry_mmap64},
    {"munmap", entry_munmap},
    {"mremap", entry_mremap},
    {"mprotect", entry_mprotect},
    {"pread", entry_pread},
    {"pread64", entry_pread64},
    {"__pread_chk", entry_pread_chk},
    {"__pread64_chk", entry_pread64_chk},
    {"pwrite", entry_pwrite},
    {"pwrite64", entry_pwrite64},
    {"read", entry_read},
    {"__read_chk", entry_read_chk},
    {"write", entry_write},
    {"lseek", entry_lseek},
    {"lseek64", entry_lseek64},
    {"preadv", entry_preadv},
    {"pwritev", entry_preadv},
    {"preadv64", entry_preadv64},
    {"pwritev64", entry_preadv64},
    {"fstat", entry_fstat},
    {"fstat64", entry_fstat64},
    {"__fxstat", entry_fxstat},
    {"__fxstat64", entry_fxstat64},
    {"sigaction", entry_sigaction},
    {"signal", entry_signal},
    {"bsd_signal", entry_bsd_signal},
    {"ssignal", entry_ssignal},
    {"sysv_signal", entry_sysv_signal},
    {"__sysv_signal", entry__sysv_signal},
    {"pthread_sigmask", entry_pthread_sigmask},
    {"sigprocmask", entry_sigprocmask},
    {NULL, NULL},
};
