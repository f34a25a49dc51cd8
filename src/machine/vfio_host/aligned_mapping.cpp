// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "aligned_mapping.hpp"

#include "moat/core/bits.hpp"

#include <sys/mman.h>

namespace moat::machine::vfio_host {

Result<AlignedMapping> AlignedMapping::create(ByteCount size, unsigned alignment_lg2, int file,
                                              std::uint64_t offset, int protection) {
    constexpr unsigned page_lg2 = 12;
    constexpr std::uint64_t most = std::uint64_t{1} << 46;
    if (size.value() > most || alignment_lg2 > 46)
        return fail(ErrorCode::no_memory, "more than a process has addresses for",
                    {"size", size.value()});
    const std::uint64_t bytes = align_up(size.value(), page_lg2);
    const std::uint64_t room = bytes + (alignment_lg2 > page_lg2 ? bit(alignment_lg2) : 0);
    constexpr int nothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const reserved = ::mmap(nullptr, room, PROT_NONE, nothing, -1, 0);
    if (reserved == MAP_FAILED)
        return platform::fail_errno("no addresses are left in this process", ErrorCode::no_memory);
    auto* const first = static_cast<std::byte*>(reserved);
    const auto at = reinterpret_cast<std::uintptr_t>(first);
    std::byte* const start = first + (align_up(at, alignment_lg2) - at);
    const int kind = MAP_FIXED | MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0);
    if (::mmap(start, bytes, protection, kind, file, static_cast<off_t>(offset)) == MAP_FAILED) {
        const auto failed =
            platform::fail_errno(file < 0 ? "memory cannot be mapped" : "the file cannot be mapped",
                                 file < 0 ? ErrorCode::no_memory : ErrorCode::unsupported);
        ::munmap(reserved, room);
        return failed;
    }
    if (start != first)
        ::munmap(first, static_cast<std::size_t>(start - first));
    if (std::byte* const end = start + bytes; end != first + room)
        ::munmap(end, static_cast<std::size_t>(first + room - end));
    return AlignedMapping({start, bytes});
}

AlignedMapping::~AlignedMapping() {
    if (!bytes_.empty())
        ::munmap(bytes_.data(), bytes_.size());
}

} // namespace moat::machine::vfio_host
