// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Pairs of functions that zero_cost_test.py compiles and compares: engine code through the policy,
// and the same by hand on the standard's own types.
#include "moat/sync/lock.hpp"
#include "moat/sync/real.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>

using moat::RealSync;

/// Installs `wanted` in an empty entry of a table, as page tables do.
template <class Sync>
bool install(std::uint64_t* entries, unsigned index, std::uint64_t wanted) {
    typename Sync::template AtomicRef<std::uint64_t> entry(entries[index]);
    std::uint64_t found = entry.load(std::memory_order_relaxed);
    while (found == 0)
        if (entry.compare_exchange_weak(found, wanted, std::memory_order_release,
                                        std::memory_order_relaxed))
            return true;
    return false;
}

/// Sums and clears a run of entries, as a walk does.
template <class Sync>
std::uint64_t take_all(std::uint64_t* entries, unsigned count) {
    std::uint64_t sum = 0;
    for (unsigned i = 0; i != count; ++i)
        sum += typename Sync::template AtomicRef<std::uint64_t>(entries[i])
                   .exchange(0, std::memory_order_acq_rel);
    return sum;
}

template <class Sync>
struct Magazine {
    typename Sync::Mutex mutex;
    typename Sync::template Plain<std::uint64_t> loaded;
    typename Sync::template Atomic<std::uint64_t> taken;

    std::uint64_t take() {
        const moat::ExclusiveLock lock(mutex);
        const std::uint64_t left = loaded.read();
        if (left == 0)
            return 0;
        loaded.write(left - 1);
        taken.fetch_add(1, std::memory_order_relaxed);
        return left;
    }
};

struct MagazineByHand {
    std::mutex mutex;
    std::uint64_t loaded;
    std::atomic<std::uint64_t> taken;
};

extern "C" {

bool install_policy(std::uint64_t* entries, unsigned index, std::uint64_t wanted) {
    return install<RealSync>(entries, index, wanted);
}

bool install_by_hand(std::uint64_t* entries, unsigned index, std::uint64_t wanted) {
    const std::atomic_ref<std::uint64_t> entry(entries[index]);
    std::uint64_t found = entry.load(std::memory_order_relaxed);
    while (found == 0)
        if (entry.compare_exchange_weak(found, wanted, std::memory_order_release,
                                        std::memory_order_relaxed))
            return true;
    return false;
}

std::uint64_t take_all_policy(std::uint64_t* entries, unsigned count) {
    return take_all<RealSync>(entries, count);
}

std::uint64_t take_all_by_hand(std::uint64_t* entries, unsigned count) {
    std::uint64_t sum = 0;
    for (unsigned i = 0; i != count; ++i)
        sum += std::atomic_ref<std::uint64_t>(entries[i]).exchange(0, std::memory_order_acq_rel);
    return sum;
}

std::uint64_t magazine_policy(Magazine<RealSync>* magazine) {
    return magazine->take();
}

std::uint64_t magazine_by_hand(MagazineByHand* magazine) {
    const std::lock_guard<std::mutex> lock(magazine->mutex);
    const std::uint64_t left = magazine->loaded;
    if (left == 0)
        return 0;
    magazine->loaded = left - 1;
    magazine->taken.fetch_add(1, std::memory_order_relaxed);
    return left;
}

// Checks the test itself: these differ.
void control_policy(std::atomic<std::uint64_t>* word) {
    word->store(1, std::memory_order_seq_cst);
}

void control_by_hand(std::atomic<std::uint64_t>* word) {
    word->store(1, std::memory_order_relaxed);
}
}
