// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// libc's functions that open, duplicate and close descriptors, and ioctl. A file of VFIO has an
// empty memory file as its descriptor, so that all other calls find one.
#include "run/preload/libc_names.hpp"
#include "run/preload/next.hpp"
#include "run/preload/own_stack.hpp"
#include "run/preload/paths.hpp"
#include "run/preload/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace moat::run;

namespace {

using Use = Descriptors::Use;

[[gnu::noinline]] int fail_with(int error) {
    errno = error;
    return -1;
}

/// The descriptor of a file that the Session opened. Rare: inlined, it would cost each ioctl.
[[gnu::noinline]] int new_descriptor(File file, bool close_on_exec) {
    const auto made =
        static_cast<int>(syscall(SYS_memfd_create, "moat-vfio", close_on_exec ? MFD_CLOEXEC : 0U));
    const int error = errno;
    if (made >= 0 && descriptors().add(made, file))
        return made;
    if (made >= 0)
        syscall(SYS_close, made);
    close_file(file);
    return fail_with(made >= 0 ? EMFILE : error);
}

/// Opens a file of VFIO, or `next` does, with another path where it leads to the soft devices.
template <class Next>
int open_any(const char* path, int flags, Next next) {
    if (Inside::here()) {
        const int made = next(path);
        descriptors().add_own(made);
        return made;
    }
    if (is_vfio_file(path)) {
        const Answer answer = [&] {
            const Inside inside;
            return session().open(path);
        }();
        if (answer.value < 0)
            return fail_with(static_cast<int>(-answer.value));
        if (answer.opened != File::none)
            return new_descriptor(answer.opened, (flags & O_CLOEXEC) != 0);
    }
    return next(Redirected(path).get());
}

int vfio_ioctl(File file, unsigned long request, std::uint64_t argument) {
    const Answer answer = [&] {
        const Inside inside;
        return session().ioctl(file, request, argument);
    }();
    if (answer.value < 0)
        return fail_with(static_cast<int>(-answer.value));
    if (answer.opened != File::none)
        return new_descriptor(answer.opened, true);
    return static_cast<int>(answer.value);
}

[[gnu::noinline]] int inherited_ioctl() {
    static constinit std::atomic<bool> printed = false;
    if (!printed.exchange(true))
        print_line("a process uses a VFIO file that it inherited from the process that forked it; "
                   "open the file again in the child");
    return fail_with(ENODEV);
}

int duplicated(int descriptor, int made) {
    if (made < 0 || descriptors().add_duplicate(descriptor, made))
        return made;
    syscall(SYS_close, made);
    return fail_with(EMFILE);
}

template <class Next>
int duplicate_to(int from, int to, Next next) {
    if (descriptors().find(to).use == Use::own)
        return fail_with(EBUSY);
    const int made = next();
    if (made < 0 || from == to)
        return made;
    forget_descriptor(to);
    return duplicated(from, made);
}

} // namespace

MOAT_INTERPOSED int open(const char* path, int flags, ...) {
    MOAT_LAST_ARGUMENT(mode_t, mode, flags);
    return open_any(path, flags, [&](const char* at) { return MOAT_NEXT(open)(at, flags, mode); });
}

MOAT_INTERPOSED int open64(const char* path, int flags, ...) {
    MOAT_LAST_ARGUMENT(mode_t, mode, flags);
    return open_any(path, flags,
                    [&](const char* at) { return MOAT_NEXT(open64)(at, flags, mode); });
}

MOAT_INTERPOSED int openat(int folder, const char* path, int flags, ...) {
    MOAT_LAST_ARGUMENT(mode_t, mode, flags);
    return open_any(path, flags,
                    [&](const char* at) { return MOAT_NEXT(openat)(folder, at, flags, mode); });
}

MOAT_INTERPOSED int openat64(int folder, const char* path, int flags, ...) {
    MOAT_LAST_ARGUMENT(mode_t, mode, flags);
    return open_any(path, flags,
                    [&](const char* at) { return MOAT_NEXT(openat64)(folder, at, flags, mode); });
}

MOAT_INTERPOSED int __open_2(const char* path, int flags) {
    return open_any(path, flags, [&](const char* at) { return MOAT_NEXT(__open_2)(at, flags); });
}

MOAT_INTERPOSED int __open64_2(const char* path, int flags) {
    return open_any(path, flags, [&](const char* at) { return MOAT_NEXT(__open64_2)(at, flags); });
}

MOAT_INTERPOSED int __openat_2(int folder, const char* path, int flags) {
    return open_any(path, flags,
                    [&](const char* at) { return MOAT_NEXT(__openat_2)(folder, at, flags); });
}

MOAT_INTERPOSED int __openat64_2(int folder, const char* path, int flags) {
    return open_any(path, flags,
                    [&](const char* at) { return MOAT_NEXT(__openat64_2)(folder, at, flags); });
}

MOAT_INTERPOSED int close(int descriptor) {
    const Entry called(MOAT_CALLED_FROM);
    const Use use = descriptors().find(descriptor).use;
    if (use == Use::own && !Inside::here())
        return fail_with(EBADF);
    if (use != Use::other && !is_vfork_child())
        forget_descriptor(descriptor);
    return MOAT_NEXT(close)(descriptor);
}

MOAT_INTERPOSED int close_range(unsigned first, unsigned last, int flags) noexcept {
    const Entry called(MOAT_CALLED_FROM);
    if ((flags & CLOSE_RANGE_CLOEXEC) != 0 || first > last)
        return MOAT_NEXT(close_range)(first, last, flags);
    constexpr auto end = static_cast<unsigned>(Descriptors::most);
    unsigned at = first;
    while (at <= last && at < end) {
        const auto known = static_cast<unsigned>(descriptors().next_known(static_cast<int>(at)));
        if (known > last || known == end)
            break;
        if (known > at && MOAT_NEXT(close_range)(at, known - 1, flags) != 0)
            return -1;
        if (descriptors().find(static_cast<int>(known)).use != Use::own)
            (void)close(static_cast<int>(known));
        at = known + 1;
    }
    return at > last ? 0 : MOAT_NEXT(close_range)(at, last, flags);
}

MOAT_INTERPOSED void closefrom(int first) noexcept {
    (void)close_range(static_cast<unsigned>(std::max(first, 0)), ~0U, 0);
}

MOAT_INTERPOSED int dup(int descriptor) noexcept {
    return duplicated(descriptor, MOAT_NEXT(dup)(descriptor));
}

MOAT_INTERPOSED int dup2(int from, int to) noexcept {
    const Entry called(MOAT_CALLED_FROM);
    return duplicate_to(from, to, [&] { return MOAT_NEXT(dup2)(from, to); });
}

MOAT_INTERPOSED int dup3(int from, int to, int flags) noexcept {
    const Entry called(MOAT_CALLED_FROM);
    return duplicate_to(from, to, [&] { return MOAT_NEXT(dup3)(from, to, flags); });
}

MOAT_INTERPOSED int fcntl(int descriptor, int command, ...) {
    MOAT_LAST_ARGUMENT(void*, argument, command);
    const int result = MOAT_NEXT(fcntl)(descriptor, command, argument);
    const bool duplicates = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
    return duplicates ? duplicated(descriptor, result) : result;
}

MOAT_ALIAS(fcntl64, fcntl);

MOAT_INTERPOSED int ioctl(int descriptor, unsigned long request, ...) noexcept {
    MOAT_LAST_ARGUMENT(void*, argument, request);
    const Descriptors::Entry entry = descriptors().find(descriptor);
    const bool of_descriptors = request == FIOCLEX || request == FIONCLEX || request == FIONBIO;
    const Entry called(MOAT_CALLED_FROM);
    if (entry.use == Use::vfio && !of_descriptors)
        return vfio_ioctl(entry.file, request, reinterpret_cast<std::uint64_t>(argument));
    if (entry.use == Use::inherited && !of_descriptors)
        return inherited_ioctl();
    return MOAT_NEXT(ioctl)(descriptor, request, argument);
}
