// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A block of 64 words is the case and the block's number, mixed reversibly into the lower 7 bits of
// each byte of one word, and combined with 64 constants: as fast to write as to copy.
#include "audit/pattern.hpp"

#include "moat/core/bits.hpp"

#include "audit/plan.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace moat::audit {

namespace {

constexpr std::size_t word_bytes = 8;
constexpr std::size_t block_words = 64;
constexpr std::size_t block_bytes = block_words * word_bytes;
constexpr unsigned name_bits = 56; ///< 7 for each byte of a word
constexpr unsigned block_number_bits = 24;
constexpr std::uint64_t data_bits = 0x7f7f'7f7f'7f7f'7f7f;
constexpr std::uint64_t odd_factor = 0x9e'3779'b97f'4a15;

static_assert(pattern_period == bit(block_number_bits) * block_bytes);

using Block = std::array<std::uint64_t, block_words>;

constexpr Block salts = [] {
    Block made{};
    for (std::size_t i = 0; i != made.size(); ++i)
        made[i] = mixed(1, i) & data_bits;
    return made;
}();

/// Modulo a power of two. Each step doubles the number of right bits.
constexpr std::uint64_t inverse_of(std::uint64_t odd) {
    std::uint64_t inverse = odd;
    for (int i = 0; i != 5; ++i)
        inverse *= 2 - odd * inverse;
    return inverse;
}

static_assert(inverse_of(odd_factor) * odd_factor == 1);

constexpr std::uint64_t folded(std::uint64_t name) {
    return name ^ name >> name_bits / 2; // its own inverse
}

constexpr std::uint64_t scrambled(std::uint64_t name) {
    const std::uint64_t once = folded(folded(name) * odd_factor & low_bits(name_bits));
    return folded(once * odd_factor & low_bits(name_bits));
}

constexpr std::uint64_t unscrambled(std::uint64_t name) {
    constexpr std::uint64_t inverse = inverse_of(odd_factor);
    const std::uint64_t once = folded(folded(name) * inverse & low_bits(name_bits));
    return folded(once * inverse & low_bits(name_bits));
}

constexpr std::uint64_t spread(std::uint64_t name) {
    std::uint64_t word = 0;
    for (unsigned i = 0; i != word_bytes; ++i)
        word |= (name >> 7 * i & 0x7f) << 8 * i;
    return word;
}

constexpr std::uint64_t gathered(std::uint64_t word) {
    std::uint64_t name = 0;
    for (unsigned i = 0; i != word_bytes; ++i)
        name |= (word >> 8 * i & 0x7f) << 7 * i;
    return name;
}

static_assert(unscrambled(gathered(spread(scrambled(0x12'3456'789a'bcde)))) == 0x12'3456'789a'bcde);

/// The word from which the words of block `number` follow.
std::uint64_t base_of(std::uint64_t case_number, std::uint64_t number) {
    const std::uint64_t name =
        (case_number & low_bits(32)) << block_number_bits | (number & low_bits(block_number_bits));
    return spread(scrambled(name));
}

void write_block(std::byte* to, std::uint64_t base) {
    for (std::size_t i = 0; i != block_words; ++i) {
        const std::uint64_t word = base ^ salts[i];
        std::memcpy(to + i * word_bytes, &word, word_bytes);
    }
}

bool holds_block(const std::byte* from, std::uint64_t base) {
    std::uint64_t difference = 0;
    for (std::size_t i = 0; i != block_words; ++i) {
        std::uint64_t word = 0;
        std::memcpy(&word, from + i * word_bytes, word_bytes);
        difference |= word ^ base ^ salts[i];
    }
    return difference == 0;
}

/// A part of one block, as data.
struct Part {
    std::uint64_t offset; ///< in the data
    std::size_t begin;    ///< in the block
    std::size_t bytes;
    std::uint64_t base;

    [[nodiscard]] bool is_whole() const { return bytes == block_bytes; }
};

/// Calls visit(part) for each block of the data.
template <class Visit>
void each_block(std::uint64_t size, Origin from, Visit visit) {
    for (std::uint64_t offset = 0; offset != size;) {
        const std::uint64_t at = from.at + offset;
        const std::size_t begin = at % block_bytes;
        const std::size_t bytes = std::min<std::uint64_t>(block_bytes - begin, size - offset);
        visit(Part{offset, begin, bytes, base_of(from.case_number, at / block_bytes)});
        offset += bytes;
    }
}

/// The name of the word's block, if it is word `index` of one.
std::optional<Origin> decoded(std::uint64_t word, std::size_t index, std::uint64_t last_case,
                              std::uint64_t medium_bytes) {
    const std::uint64_t name = unscrambled(gathered(word ^ salts[index]));
    // The name has its lower 32 bits.
    std::uint64_t case_number = (last_case & ~low_bits(32)) | name >> block_number_bits;
    if (case_number > last_case && case_number >= bit(32))
        case_number -= bit(32);
    const std::uint64_t at =
        (name & low_bits(block_number_bits)) * block_bytes + index * word_bytes;
    if (case_number > last_case || at >= medium_bytes)
        return std::nullopt;
    return Origin{case_number, at};
}

} // namespace

void fill_pattern(std::span<std::byte> bytes, Origin from) {
    each_block(bytes.size(), from, [&](const Part& part) {
        if (part.is_whole())
            return write_block(bytes.data() + part.offset, part.base);
        std::array<std::byte, block_bytes> block;
        write_block(block.data(), part.base);
        std::memcpy(bytes.data() + part.offset, block.data() + part.begin, part.bytes);
    });
}

WrongWords compare_pattern(std::span<const std::byte> bytes, Origin from) {
    WrongWords wrong;
    each_block(bytes.size(), from, [&](const Part& part) {
        const std::byte* const loaded = bytes.data() + part.offset;
        if (part.is_whole() && holds_block(loaded, part.base))
            return;
        std::array<std::byte, block_bytes> block;
        write_block(block.data(), part.base);
        for (std::size_t at = 0; at != part.bytes;) {
            const std::size_t into_word = (part.begin + at) % word_bytes;
            const std::size_t count = std::min(word_bytes - into_word, part.bytes - at);
            if (std::memcmp(loaded + at, block.data() + part.begin + at, count) != 0) {
                if (wrong.bytes == 0)
                    wrong.first = part.offset + at;
                wrong.bytes += count;
            }
            at += count;
        }
    });
    return wrong;
}

std::optional<Origin> origin_of(std::span<const std::byte> bytes, std::uint64_t last_case,
                                std::uint64_t medium_bytes) {
    for (std::size_t skipped = 0; skipped != word_bytes && skipped + word_bytes <= bytes.size();
         ++skipped) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + skipped, sizeof word);
        if ((word & ~data_bits) != 0)
            continue;
        for (std::size_t index = 0; index != block_words; ++index) {
            const auto found = decoded(word, index, last_case, medium_bytes);
            if (found && found->at >= skipped)
                return Origin{found->case_number, found->at - skipped};
        }
    }
    return std::nullopt;
}

} // namespace moat::audit
