// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// libc's functions on mappings. A mapped region is memory that faults. System calls are made
// directly: allocators call these before the library is ready.
#include "run/preload/next.hpp"
#include "run/preload/own_stack.hpp"
#include "run/preload/process.hpp"

#include <cerrno>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

using namespace moat::run;

namespace {

constexpr std::uint64_t page = 4096;

[[nodiscard]] std::uint64_t number(const void* address) {
    return reinterpret_cast<std::uint64_t>(address);
}

[[nodiscard]] std::uint64_t in_pages(std::size_t bytes) {
    return (bytes + page - 1) & ~(page - 1);
}

[[nodiscard]] void* as_pointer(long result) {
    return reinterpret_cast<void*>(result); // NOLINT(performance-no-int-to-ptr)
}

void* map_region(void* address, std::size_t bytes, int flags, File file, off_t offset) {
    const std::uint64_t size = in_pages(bytes);
    const auto window = [&] {
        const Inside inside;
        return session().window(file, static_cast<std::uint64_t>(offset), size);
    }();
    if (!window || (flags & MAP_TYPE) != MAP_SHARED) {
        errno = EINVAL;
        return MAP_FAILED;
    }
    const int kept = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    void* const made =
        as_pointer(syscall(SYS_mmap, address, size, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | kept, -1, 0));
    if (made == MAP_FAILED)
        return MAP_FAILED;
    forget_mappings(number(made), number(made) + size);
    if (!windows().add({number(made), number(made) + size, *window, file})) {
        print_line("too many mappings of devices' regions: 256 are possible");
        syscall(SYS_munmap, made, size);
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return made;
}

} // namespace

MOAT_INTERPOSED void* mmap(void* address, std::size_t bytes, int protection, int flags,
                           int descriptor, off_t offset) {
    const Descriptors::Entry entry = descriptors().find(descriptor);
    if (entry.use == Descriptors::Use::vfio && (flags & MAP_ANONYMOUS) == 0)
        return map_region(address, bytes, flags, entry.file, offset);
    void* const made =
        as_pointer(syscall(SYS_mmap, address, bytes, protection, flags, descriptor, offset));
    if (made != MAP_FAILED && (flags & MAP_FIXED) != 0)
        forget_mappings(number(made), number(made) + in_pages(bytes));
    return made;
}

MOAT_ALIAS(mmap64, mmap);

MOAT_INTERPOSED int munmap(void* address, std::size_t bytes) {
    const Entry called(MOAT_CALLED_FROM);
    const std::uint64_t start = number(address);
    if (start % page == 0)
        forget_mappings(start, start + in_pages(bytes));
    return static_cast<int>(syscall(SYS_munmap, address, bytes));
}

MOAT_INTERPOSED void* mremap(void* address, std::size_t old_bytes, std::size_t bytes, int flags,
                             ...) {
    MOAT_LAST_ARGUMENT(void*, wanted, flags);
    const auto mapped = windows().find(number(address));
    if (mapped && (bytes > old_bytes || old_bytes == 0)) {
        errno = EFAULT; // a device's mapping does not grow
        return MAP_FAILED;
    }
    void* const made = as_pointer(syscall(SYS_mremap, address, old_bytes, bytes, flags, wanted));
    if (made == MAP_FAILED)
        return made;
    if (made != address)
        forget_mappings(number(made), number(made) + in_pages(bytes));
    if (!mapped)
        return made;
    if (made == address) {
        forget_mappings(number(address) + in_pages(bytes), number(address) + in_pages(old_bytes));
        return made;
    }
    (void)windows().add(
        {number(made), number(made) + in_pages(bytes), mapped->at(number(address)), mapped->file});
    forget_mappings(number(address), number(address) + in_pages(old_bytes));
    return made;
}

MOAT_INTERPOSED int mprotect(void* address, std::size_t bytes, int protection) {
    if (windows().overlaps(number(address), number(address) + in_pages(bytes)))
        return 0; // regions keep faulting
    return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}
