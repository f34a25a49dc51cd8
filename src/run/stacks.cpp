// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/stacks.hpp"

#include <bit>

namespace moat::run {

namespace {

constexpr std::uint64_t odd = 0x9e3779b97f4a7c15; // 2^64 / the golden ratio

} // namespace

std::size_t Stacks::Hash::operator()(fault::StackView stack) const {
    std::uint64_t hash = stack.size();
    for (const std::uintptr_t frame : stack)
        hash = std::rotl(hash ^ frame, 23) * odd;
    return hash;
}

fault::StackView Stacks::keep(fault::StackView stack) {
    if (stack.empty())
        return {};
    fault::StackView& latest = latest_[stack.front() * odd >> 60];
    if (Equal()(latest, stack))
        return latest;
    auto found = stacks_.find(stack);
    if (found == stacks_.end())
        found = stacks_.emplace(stack.begin(), stack.end()).first;
    return latest = *found;
}

} // namespace moat::run
