// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Owners of a file descriptor and of a piece of mapped memory, for witnesses that live outside of
// this process or in the kernel.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace moat::tests {

[[noreturn]] inline void throw_errno(const std::string& what) {
    throw std::runtime_error(what + ": " + std::strerror(errno));
}

class FileDescriptor {
  public:
    /// Throws what `what` and errno say where `number` is negative.
    FileDescriptor(int number, const char* what) : number_(number) {
        if (number < 0)
            throw_errno(what);
    }

    FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}

    FileDescriptor& operator=(FileDescriptor&&) = delete;
    FileDescriptor(const FileDescriptor&) = delete;
    FileDescriptor& operator=(const FileDescriptor&) = delete;

    ~FileDescriptor() {
        if (number_ >= 0)
            ::close(number_);
    }

    [[nodiscard]] int get() const { return number_; }

  private:
    int number_;
};

/// Shared and writable.
class MappedMemory {
  public:
    /// Of a file, or, with -1, of nothing.
    MappedMemory(int file, std::size_t bytes)
        : address_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0)),
          bytes_(bytes) {
        if (address_ == MAP_FAILED)
            throw_errno("mmap");
    }

    MappedMemory(const MappedMemory&) = delete;
    MappedMemory& operator=(const MappedMemory&) = delete;

    ~MappedMemory() { ::munmap(address_, bytes_); }

    [[nodiscard]] std::byte* get() const { return static_cast<std::byte*>(address_); }

    [[nodiscard]] std::size_t bytes() const { return bytes_; }

  private:
    void* address_;
    std::size_t bytes_;
};

} // namespace moat::tests
