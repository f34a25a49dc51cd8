// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// 512 pages as a bitmap: the lowest level of the free space. A set bit is a free page.
// The tree over the chunks is run_tree.hpp. Nothing concurrent here.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iova/detail/free_runs.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace moat::iova {

/// A search for a free run under way; `carry` is the free run that ends where the search stands.
struct RunSearch {
    std::uint64_t count = 0;
    std::uint64_t from = 0;
    std::uint64_t limit = 0;
    std::uint64_t carry = 0;
    std::uint64_t found = 0;
    /// Summaries and bitmap words read.
    unsigned steps = 0;
};

enum class Fill : std::uint8_t { used, free };

class Chunk {
  public:
    static constexpr unsigned pages = 512;

    explicit Chunk(Fill fill) { set_all(fill); }

    void set_all(Fill fill) { words_.fill(fill == Fill::free ? ~std::uint64_t{0} : 0); }

    /// Sets pages [first, end) of this chunk.
    void set(unsigned first, unsigned end, Fill fill) {
        for (unsigned word = first / 64; word * 64 < end; ++word) {
            const unsigned low = first > word * 64 ? first - word * 64 : 0;
            const unsigned high = end < word * 64 + 64 ? end - word * 64 : 64;
            const std::uint64_t mask = low_bits(high) & ~low_bits(low);
            words_[word] = fill == Fill::free ? words_[word] | mask : words_[word] & ~mask;
        }
    }

    [[nodiscard]] FreeRuns runs() const {
        FreeRuns all{};
        unsigned run = 0;
        bool all_free_so_far = true;
        for (const std::uint64_t word : words_) {
            const auto leading = static_cast<unsigned>(std::countr_one(word));
            if (run + leading > all.longest)
                all.longest = run + leading;
            if (all_free_so_far) {
                all.start = run + leading;
                all_free_so_far = leading == 64;
            }
            if (leading == 64) {
                run += 64;
                continue;
            }
            if (all.longest < 64)
                all.longest = longest_run(word, static_cast<unsigned>(all.longest));
            run = static_cast<unsigned>(std::countl_one(word));
        }
        all.end = run;
        return all;
    }

    /// Continues a search in this chunk, whose first page is `base`, from `search.from` on.
    /// Return: whether it ended here; `search.found` is the run's first page then.
    [[nodiscard]] bool find(RunSearch& search, std::uint64_t base) const {
        const unsigned from = search.from > base ? static_cast<unsigned>(search.from - base) : 0;
        for (unsigned i = from / 64; i != words_.size(); ++i) {
            ++search.steps;
            const std::uint64_t word =
                i == from / 64 ? words_[i] & ~low_bits(from % 64) : words_[i];
            const auto leading = static_cast<unsigned>(std::countr_one(word));
            if (search.carry + leading >= search.count) {
                search.found = base + i * 64 - search.carry;
                return true;
            }
            const std::uint64_t starts =
                search.count <= 64 ? run_starts(word, static_cast<unsigned>(search.count)) : 0;
            if (starts != 0) {
                search.found = base + i * 64 + static_cast<unsigned>(std::countr_zero(starts));
                return true;
            }
            search.carry =
                leading == 64 ? search.carry + 64 : static_cast<unsigned>(std::countl_one(word));
        }
        return false;
    }

    /// The free pages from page `first` of this chunk on, up to its end.
    [[nodiscard]] std::uint64_t run_length(unsigned first) const {
        std::uint64_t length = 0;
        for (unsigned i = first / 64; i != words_.size(); ++i) {
            const unsigned low = i == first / 64 ? first % 64 : 0;
            const auto ones = static_cast<unsigned>(std::countr_one(words_[i] >> low));
            length += ones;
            if (ones != 64 - low)
                break;
        }
        return length;
    }

    // For free_space.hpp: the payload class that the chunk was opened for (0: none), and its place
    // in the list of that class.

    std::uint16_t size_class = 0;
    bool listed = false;
    std::uint64_t first_page = 0;
    Chunk* next = nullptr;

  private:
    /// The bits at which `length` (1..64) set bits begin: the word folded onto itself, doubling.
    static std::uint64_t run_starts(std::uint64_t word, unsigned length) {
        unsigned have = 1;
        while (word != 0 && have < length) {
            const unsigned step = have < length - have ? have : length - have;
            word &= word >> step;
            have += step;
        }
        return word;
    }

    /// The longest run inside `word`, or `least` where none is longer.
    static unsigned longest_run(std::uint64_t word, unsigned least) {
        unsigned length = least + 1;
        std::uint64_t starts = run_starts(word, length);
        if (starts == 0)
            return least;
        for (unsigned step = length; step != 0;) {
            const std::uint64_t longer = starts & starts >> step;
            if (longer != 0) {
                starts = longer;
                length += step;
                step = length;
            } else {
                step /= 2;
            }
        }
        return length;
    }

    std::array<std::uint64_t, pages / 64> words_{};
};

} // namespace moat::iova
