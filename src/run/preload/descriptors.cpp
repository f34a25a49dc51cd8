// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/descriptors.hpp"

#include <algorithm>

namespace moat::run {

void Descriptors::set(int descriptor, std::uint32_t entry) {
    entries_[static_cast<std::size_t>(descriptor)].store(entry, std::memory_order_release);
    int end = end_;
    while (end <= descriptor && !end_.compare_exchange_weak(end, descriptor + 1)) {
    }
}

bool Descriptors::add(int descriptor, File file) {
    if (!fits(descriptor))
        return false;
    set(descriptor, static_cast<std::uint32_t>(file));
    return true;
}

void Descriptors::add_own(int descriptor) {
    if (fits(descriptor))
        set(descriptor, own);
}

bool Descriptors::add_duplicate(int descriptor, int duplicate) {
    const Entry entry = find(descriptor);
    if (entry.use == Use::vfio)
        return add(duplicate, entry.file);
    if (entry.use == Use::inherited && fits(duplicate))
        set(duplicate, inherited);
    return true;
}

Descriptors::Entry Descriptors::remove(int descriptor) {
    const Entry entry = find(descriptor);
    if (entry.use != Use::other)
        set(descriptor, 0);
    return entry;
}

bool Descriptors::refers(File file) const {
    const auto end = entries_.begin() + end_.load();
    return std::find(entries_.begin(), end, static_cast<std::uint32_t>(file)) != end;
}

int Descriptors::next_known(int first) const {
    const int end = end_;
    for (int each = std::max(first, 0); each < end; ++each)
        if (find(each).use != Use::other)
            return each;
    return most;
}

void Descriptors::inherit() {
    for (int each = next_known(0); each < most; each = next_known(each + 1))
        if (find(each).use == Use::vfio)
            set(each, inherited);
}

} // namespace moat::run
