// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Line: builds a report's text in its own buffer, without allocating. Only readers use it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moat::mm {

class Line {
  public:
    void text(std::string_view part) {
        for (const char c : part)
            if (used_ != bytes_.size())
                bytes_[used_++] = c;
    }

    void decimal(std::uint64_t value) { number(value, 10, 1); }

    /// At least `digits` digits, as "%08lx" is.
    void hexadecimal(std::uint64_t value, unsigned digits) { number(value, 16, digits); }

    /// " name=value"
    void field(std::string_view name, std::uint64_t value) {
        text(" ");
        text(name);
        text("=");
        decimal(value);
    }

    [[nodiscard]] std::string_view view() const { return {bytes_.data(), used_}; }

  private:
    void number(std::uint64_t value, unsigned base, unsigned digits) {
        std::array<char, 20> reversed{};
        std::size_t count = 0;
        for (; value != 0 || count < digits; value /= base)
            reversed[count++] = "0123456789abcdef"[value % base];
        while (count != 0)
            text({&reversed[--count], 1});
    }

    std::array<char, 1024> bytes_{};
    std::size_t used_ = 0;
};

} // namespace moat::mm
