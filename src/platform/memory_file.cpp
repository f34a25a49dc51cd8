// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "platform/memory_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace moat::platform {

Result<Mapping> Mapping::create(int file, ByteCount size) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "a mapping has a length");
    void* const address = ::mmap(nullptr, size.value(), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
    if (address == MAP_FAILED)
        return fail_errno("memory cannot be mapped", ErrorCode::no_memory, {"size", size.value()});
    return Mapping({static_cast<std::byte*>(address), size.value()});
}

Mapping::~Mapping() {
    if (!bytes_.empty())
        ::munmap(bytes_.data(), bytes_.size());
}

Result<MemoryFile> MemoryFile::create(const char* label, ByteCount size) {
    FileDescriptor file(::memfd_create(label, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (file.get() < 0)
        return fail_errno("a file of memory cannot be made");
    if (::ftruncate(file.get(), static_cast<off_t>(size.value())) < 0)
        return fail_errno("a file of memory cannot get its size", ErrorCode::no_memory,
                          {"size", size.value()});
    // Another process can neither cut memory off under the mapping nor let the file grow.
    if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return fail_errno("a file of memory cannot be sealed");
    auto mapping = Mapping::create(file.get(), size);
    if (!mapping)
        return std::unexpected(mapping.error());
    return MemoryFile(std::move(file), std::move(*mapping));
}

std::string MemoryFile::path() const {
    return "/proc/self/fd/" + std::to_string(descriptor());
}

} // namespace moat::platform
