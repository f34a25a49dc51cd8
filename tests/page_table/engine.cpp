// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The parts of engine.hpp that depend on no format.
#include "engine.hpp"

#include <algorithm>

namespace moat::tests {

bool FormatFacts::has_leaf(std::uint64_t size) const {
    return std::any_of(leaf_sizes_lg2.begin(), leaf_sizes_lg2.end(),
                       [&](unsigned lg2) { return bit(lg2) == size; });
}

std::uint64_t FormatFacts::next_smaller_leaf(std::uint64_t size) const {
    std::uint64_t found = 0;
    for (const unsigned lg2 : leaf_sizes_lg2)
        if (bit(lg2) < size)
            found = bit(lg2);
    return found;
}

std::ostream& operator<<(std::ostream& out, const Piece& piece) {
    return out << "to " << hexadecimal(piece.last) << " -> " << hexadecimal(piece.physical)
               << " attributes " << static_cast<std::uint32_t>(piece.attributes);
}

void append_merged(Mappings& mappings, std::uint64_t start, const Piece& piece) {
    if (!mappings.empty()) {
        auto& [before_start, before] = *mappings.rbegin();
        if (before.last + 1 == start && before.attributes == piece.attributes &&
            before.physical + (start - before_start) == piece.physical) {
            before.last = piece.last;
            return;
        }
    }
    mappings.emplace(start, piece);
}

std::vector<FormatUnderTest> all_formats() {
    std::vector<FormatUnderTest> all = cpu_formats();
    for (auto& list : {iommu_formats(), arm_formats()})
        all.insert(all.end(), list.begin(), list.end());
    return all;
}

} // namespace moat::tests
