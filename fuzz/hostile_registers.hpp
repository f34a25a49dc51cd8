// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The registers of a unit whose every answer comes from a fuzzer's input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace moat::fuzz {

class HostileRegisters {
  public:
    HostileRegisters(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    std::uint32_t read32(unsigned) { return static_cast<std::uint32_t>(next()); }

    std::uint64_t read64(unsigned) { return next(); }

    void write32(unsigned, std::uint32_t) {}

    void write64(unsigned, std::uint64_t) {}

    bool relax(unsigned attempt) { return attempt < 4; }

    /// 0 at the input's end.
    std::uint64_t next() {
        std::uint64_t value = 0;
        const std::size_t taken = size_ < sizeof value ? size_ : sizeof value;
        std::memcpy(&value, data_, taken);
        data_ += taken;
        size_ -= taken;
        return value;
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
};

} // namespace moat::fuzz
