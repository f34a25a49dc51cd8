// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A mapping at an address that is a multiple of 2^n: mmap aligns to pages and no more.
// Memory that is shared with devices, and BARs; the machine and its functions own them.
#pragma once

#include "moat/core/types.hpp"

#include "platform/file_descriptor.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace moat::machine::vfio_host {

class AlignedMapping {
  public:
    /// Of the file from `offset` on, readable and writable as told; of zeroed memory, shared with
    /// forks, where `file` is below 0. `size` is not 0.
    /// Errors: no_memory, unsupported (the file cannot be mapped).
    [[nodiscard]] static Result<AlignedMapping>
    create(ByteCount size, unsigned alignment_lg2, int file, std::uint64_t offset, int protection);

    AlignedMapping(AlignedMapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

    AlignedMapping& operator=(AlignedMapping&&) = delete;
    AlignedMapping(const AlignedMapping&) = delete;
    AlignedMapping& operator=(const AlignedMapping&) = delete;
    ~AlignedMapping();

    /// Whole pages.
    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

  private:
    explicit AlignedMapping(std::span<std::byte> bytes) : bytes_(bytes) {}

    std::span<std::byte> bytes_;
};

} // namespace moat::machine::vfio_host
