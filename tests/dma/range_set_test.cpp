// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A set of ranges against a bitmap.
#include "moat/dma/detail/range_set.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace moat::dma {

namespace {

TEST(RangeSet, holds_what_a_bitmap_holds) {
    const char* const given = std::getenv("MOAT_SEED");
    const unsigned seed = given != nullptr ? std::stoul(given) : 5;
    SCOPED_TRACE("MOAT_SEED=" + std::to_string(seed));
    std::mt19937 random(seed);
    constexpr std::size_t size = 128;
    for (const std::uint64_t base :
         {std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max() - size + 1}) {
        RangeSet set;
        std::array<bool, size> model{};
        for (int step = 0; step != 20'000; ++step) {
            const std::size_t first = random() % size;
            const std::size_t last = first + random() % (size - first);
            const bool adds = random() % 2 == 0;
            if (adds)
                set.add(base + first, base + last);
            else
                set.remove(base + first, base + last);
            for (std::size_t i = first; i <= last; ++i)
                model[i] = adds;
            bool before = false;
            for (std::size_t next = 0; next != size;) {
                const RangeSet::Piece piece = set.piece_from(base + next, base + size - 1);
                ASSERT_GE(piece.last, base + next);
                ASSERT_TRUE(next == 0 || piece.inside != before) << "pieces are the longest";
                for (; next != piece.last - base + 1; ++next)
                    ASSERT_EQ(model[next], piece.inside) << "step " << step << ", " << next;
                before = piece.inside;
            }
            std::size_t clear = first;
            while (clear <= last && !model[clear])
                ++clear;
            ASSERT_EQ(set.clear_from(base + first, last - first + 1), clear - first);
            ASSERT_EQ(set.empty(), std::ranges::none_of(model, std::identity{}));
        }
    }
}

} // namespace

} // namespace moat::dma
