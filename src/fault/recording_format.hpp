// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The bytes of a recording (docs/recording_format.md): numbers, limits, the check, and the ring of
// ranges that writer and reader keep alike. Internal to recording_writer.cpp and -_reader.cpp.
#pragma once

#include "fault/dma_event.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace moat::fault::recording {

/// "moatrec" and the version.
inline constexpr std::array<std::uint8_t, 8> header = {'m', 'o', 'a', 't', 'r', 'e', 'c', 1};

/// The first number of a record's body; from first_site on it is the number of an event's site.
enum class Tag : std::uint8_t { text, symbol, stack, site, forget };

inline constexpr std::uint64_t first_site = 8;

inline constexpr std::size_t most_body_bytes = 65536;
inline constexpr std::size_t most_text_bytes = 16384;
inline constexpr std::size_t most_symbol_text_bytes = 1024;
inline constexpr std::size_t most_frames = 16;
inline constexpr std::size_t most_stack = 256;

/// What the tables may hold between two `forget`s.
inline constexpr std::size_t most_texts = 65536;
inline constexpr std::size_t most_texts_bytes = std::size_t{4} << 20;
inline constexpr std::size_t most_stacks = 65536;
inline constexpr std::size_t most_stacks_addresses = std::size_t{1} << 20;
inline constexpr std::size_t most_sites = 65536;
/// For the whole file.
inline constexpr std::size_t most_symbols = 65536;
inline constexpr std::size_t most_symbols_bytes = std::size_t{16} << 20;
inline constexpr std::size_t frame_bytes = 64; ///< that a frame counts for beside its texts

/// The fields of an event that follow its site.
struct Has {
    static constexpr std::uint8_t range = 1;
    static constexpr std::uint8_t physical = 2;
    static constexpr std::uint8_t count = 4;
    static constexpr std::uint8_t record = 8;
    static constexpr std::uint8_t group = 16; ///< of the site itself
    static constexpr std::uint8_t passes_through = 32;
    static constexpr std::uint8_t all = 63;
};

/// The optional fields of a fault::Record.
struct RecordHas {
    static constexpr std::uint8_t segment = 1;
    static constexpr std::uint8_t domain = 2;
    static constexpr std::uint8_t pasid = 4;
    static constexpr std::uint8_t code = 8;
    static constexpr std::uint8_t time = 16;
    static constexpr std::uint8_t all = 31;
};

/// What equal calls have in common. Texts and stacks are numbers; 0 is none.
struct Site {
    DmaEvent::Kind kind = DmaEvent::Kind::map;
    std::uint8_t has = 0;
    Allows allows = Allows::read_write;
    std::uint32_t thread = 0;
    std::uint32_t group = 0;
    std::uint32_t device = 0;
    std::uint32_t driver = 0;
    std::uint32_t call = 0;
    std::uint32_t task = 0;
    std::uint32_t stack = 0;

    friend bool operator==(const Site&, const Site&) = default;
};

/// CRC-32 (IEEE 802.3) of all bytes so far.
class Check {
  public:
    void add(std::uint8_t byte) { state_ = state_ >> 8 ^ table[(state_ ^ byte) & 0xff]; }

    /// The byte that ends a record.
    [[nodiscard]] std::uint8_t byte() const { return static_cast<std::uint8_t>(~state_); }

  private:
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t index = 0; index != 256; ++index) {
            std::uint32_t value = index;
            for (int bit = 0; bit != 8; ++bit)
                value = value >> 1 ^ ((value & 1) != 0 ? 0xedb88320U : 0U);
            made[index] = value;
        }
        return made;
    }();

    std::uint32_t state_ = ~std::uint32_t{0};
};

/// Small for small numbers of both signs.
[[nodiscard]] constexpr std::uint64_t zigzag(std::uint64_t difference) {
    return difference << 1 ^ (0 - (difference >> 63));
}

[[nodiscard]] constexpr std::uint64_t unzigzag(std::uint64_t number) {
    return number >> 1 ^ (0 - (number & 1));
}

/// Appends to a record's body.
class Encoder {
  public:
    void byte(std::uint8_t value) { bytes_.push_back(value); }

    /// LEB128: seven bits a byte, the lowest first.
    void number(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7)
            byte(static_cast<std::uint8_t>(value | 0x80));
        byte(static_cast<std::uint8_t>(value));
    }

    /// `value` relative to `last`, which becomes `value`.
    void difference(std::uint64_t value, std::uint64_t& last) {
        number(zigzag(value - last));
        last = value;
    }

    void text(std::string_view value) {
        number(value.size());
        bytes_.insert(bytes_.end(), value.begin(), value.end());
    }

    [[nodiscard]] std::span<const std::uint8_t> bytes() const { return bytes_; }

    void clear() { bytes_.clear(); }

  private:
    std::vector<std::uint8_t> bytes_;
};

/// Reads a record's body. After the first failure every read gives 0, and `failed` holds.
class BodyCursor {
  public:
    explicit BodyCursor(std::span<const std::uint8_t> bytes) : rest_(bytes) {}

    [[nodiscard]] std::uint8_t byte() {
        if (rest_.empty()) {
            failed_ = true;
            return 0;
        }
        const std::uint8_t value = rest_.front();
        rest_ = rest_.subspan(1);
        return value;
    }

    [[nodiscard]] std::uint64_t number() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const std::uint64_t next = byte();
            if (shift == 63 && next > 1)
                break;
            value |= (next & 0x7f) << shift;
            if (next < 0x80)
                return value;
        }
        failed_ = true;
        return 0;
    }

    /// A number up to `most`.
    [[nodiscard]] std::uint64_t number(std::uint64_t most) {
        const std::uint64_t value = number();
        if (value <= most)
            return value;
        failed_ = true;
        return 0;
    }

    [[nodiscard]] std::uint64_t difference(std::uint64_t& last) {
        last += unzigzag(number());
        return last;
    }

    [[nodiscard]] std::string_view text(std::size_t most) {
        const auto size = static_cast<std::size_t>(number(most));
        if (size > rest_.size()) {
            failed_ = true;
            return {};
        }
        const std::string_view value(reinterpret_cast<const char*>(rest_.data()), size);
        rest_ = rest_.subspan(size);
        return value;
    }

    [[nodiscard]] std::size_t left() const { return rest_.size(); }

    /// Also if something is left: a body has nothing after its fields.
    [[nodiscard]] bool failed() const { return failed_ || !rest_.empty(); }

  private:
    std::span<const std::uint8_t> rest_;
    bool failed_ = false;
};

/// The ranges that were written in full lately, so that an unmap, or the next map at a reused
/// address, takes one byte or two.
class RecentRanges {
  public:
    static constexpr std::size_t capacity = 4096;

    void push(const IovaRange& range) { ring_[count_++ % capacity] = range; }

    /// The `back`-th newest; 1 is the newest. nullptr: there is none.
    [[nodiscard]] const IovaRange* find(std::uint64_t back) const {
        if (back == 0 || back > count_ || back > capacity)
            return nullptr;
        return &ring_[(count_ - back) % capacity];
    }

    [[nodiscard]] std::uint64_t count() const { return count_; }

  private:
    std::vector<IovaRange> ring_ = std::vector<IovaRange>(capacity);
    std::uint64_t count_ = 0;
};

} // namespace moat::fault::recording
