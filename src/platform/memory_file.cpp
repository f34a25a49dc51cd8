// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/memory_file.hpp"

#include "moat/core/bits.hpp"

#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace moat::platform {

/// Reserves addresses around the mapping first, since mmap aligns only to pages.
Result<Mapping> Mapping::create(int file, ByteCount size, const MappingOptions& options) {
    constexpr unsigned page_lg2 = 12;
    constexpr unsigned most_lg2 = 46; // a process has 2^47 addresses
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "cannot map 0 bytes");
    if (size.value() > bit(most_lg2) || options.alignment_lg2 > most_lg2)
        return fail(ErrorCode::no_memory, "larger than the address space of a process",
                    {"size", size.value()}, {"alignment_lg2", options.alignment_lg2});
    const std::uint64_t bytes = align_up(size.value(), page_lg2);
    const std::uint64_t room =
        bytes + (options.alignment_lg2 > page_lg2 ? bit(options.alignment_lg2) : 0);
    constexpr int nothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const reserved = ::mmap(nullptr, room, PROT_NONE, nothing, -1, 0);
    if (reserved == MAP_FAILED)
        return fail_errno("the address space of this process is full", ErrorCode::no_memory,
                          {"size", size.value()});
    auto* const first = static_cast<std::byte*>(reserved);
    const auto at = reinterpret_cast<std::uintptr_t>(first);
    std::byte* const start = first + (align_up(at, options.alignment_lg2) - at);
    if (::mmap(start, bytes, PROT_READ | (options.writable ? PROT_WRITE : 0),
               MAP_FIXED | MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file,
               static_cast<off_t>(options.offset)) == MAP_FAILED) {
        const auto failed = fail_errno(file < 0 ? "cannot map memory" : "cannot map the file",
                                       file < 0 ? ErrorCode::no_memory : ErrorCode::unsupported,
                                       {"size", size.value()});
        ::munmap(reserved, room);
        return failed;
    }
    if (start != first)
        ::munmap(first, static_cast<std::size_t>(start - first));
    if (std::byte* const end = start + bytes; end != first + room)
        ::munmap(end, static_cast<std::size_t>(first + room - end));
    return Mapping({start, size.value()});
}

Mapping::~Mapping() {
    if (!bytes_.empty())
        ::munmap(bytes_.data(), bytes_.size());
}

void zero_pages(std::span<std::byte> pages) {
    constexpr std::size_t few = std::size_t{256} << 10; // writing them costs less than new pages
    if (pages.size() <= few || ::madvise(pages.data(), pages.size(), MADV_REMOVE) < 0)
        std::memset(pages.data(), 0, pages.size());
}

Result<MemoryFile> MemoryFile::create(const char* label, ByteCount size) {
    FileDescriptor file(::memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (file.get() < 0)
        return fail_errno("cannot create a memory file");
    if (::ftruncate(file.get(), static_cast<off_t>(size.value())) < 0)
        return fail_errno("cannot set the size of a memory file", ErrorCode::no_memory,
                          {"size", size.value()});
    // Seals the size: another process can neither shrink the file under the mapping nor grow it.
    if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return fail_errno("cannot seal a memory file");
    MOAT_LET(Mapping mapping, Mapping::create(file.get(), size));
    return MemoryFile(std::move(file), std::move(mapping));
}

std::string MemoryFile::path() const {
    return "/proc/self/fd/" + std::to_string(descriptor());
}

} // namespace moat::platform
