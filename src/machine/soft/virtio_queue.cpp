// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/soft/virtio_queue.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace moat::machine::soft {

namespace {

constexpr std::uint16_t continues = 1U << 0;
constexpr std::uint16_t device_writes = 1U << 1;
constexpr std::uint16_t indirect = 1U << 2; // not offered

constexpr std::uint16_t no_interrupt = 1U << 0;    // in the flags of the available ring
constexpr std::uint16_t no_notification = 1U << 0; // in those of the used ring

// Of both rings: flags, index, entries.
constexpr std::uint64_t ring_index = 2;
constexpr std::uint64_t ring_entries = 4;

template <class T>
[[nodiscard]] bool read_into(BusMaster& bus, std::uint64_t at, std::span<T> into) {
    return bus.read(Iova(at), std::as_writable_bytes(into)).value() == into.size_bytes();
}

template <class T>
[[nodiscard]] bool write_from(BusMaster& bus, std::uint64_t at, std::span<const T> from) {
    return bus.write(Iova(at), std::as_bytes(from)).value() == from.size_bytes();
}

} // namespace

VirtioQueue::Taken VirtioQueue::take(BusMaster& bus, Chain& chain) {
    if (next_head_ == fetched_heads_)
        if (const Taken fetched = fetch(bus); fetched != Taken::chain)
            return fetched;
    chain.head = heads_[next_head_];
    return read_chain(bus, first_descriptors_[next_head_++], chain);
}

bool VirtioQueue::has_more(BusMaster& bus) {
    return next_head_ != fetched_heads_ || fetch(bus) != Taken::nothing;
}

VirtioQueue::Taken VirtioQueue::fetch(BusMaster& bus) {
    std::uint16_t index = 0;
    if (!read_into(bus, place_.available + ring_index, std::span(&index, 1)))
        return Taken::unreachable;
    const auto fresh = static_cast<std::uint16_t>(index - fetched_);
    if (fresh == 0)
        return Taken::nothing;
    if (fresh > place_.entries)
        return Taken::too_many;
    const unsigned first = fetched_ % place_.entries;
    const unsigned count = std::min({unsigned{fresh}, most_heads, place_.entries - first});
    const std::span<std::uint16_t> heads = std::span(heads_).first(count);
    if (!read_into(bus, place_.available + ring_entries + first * sizeof(std::uint16_t), heads))
        return Taken::unreachable;
    // Drivers use descriptors mostly in their order: one read for each row of them.
    for (unsigned start = 0; start != count;) {
        unsigned end = start + 1;
        while (end != count && heads[end] == heads[end - 1] + 1)
            ++end;
        const std::span row = std::span(first_descriptors_).subspan(start, end - start);
        if (heads[end - 1] >= place_.entries)
            std::ranges::fill(row, Descriptor{}); // read_chain() rejects the heads
        else if (!read_descriptors(bus, heads[start], row))
            return Taken::unreachable;
        start = end;
    }
    next_head_ = 0;
    fetched_heads_ = count;
    fetched_ = static_cast<std::uint16_t>(fetched_ + count);
    return Taken::chain;
}

bool VirtioQueue::read_descriptors(BusMaster& bus, std::uint32_t first,
                                   std::span<Descriptor> into) const {
    return read_into(bus, place_.descriptors + first * sizeof(Descriptor), into);
}

VirtioQueue::Taken VirtioQueue::read_chain(BusMaster& bus, Descriptor descriptor,
                                           Chain& chain) const {
    chain.readable.clear();
    chain.writable.clear();
    if (chain.head >= place_.entries)
        return Taken::invalid_chain;
    for (unsigned length = 1;; ++length) {
        const bool writable = (descriptor.flags & device_writes) != 0;
        if ((descriptor.flags & indirect) != 0 || (!writable && !chain.writable.empty()))
            return Taken::invalid_chain;
        if (descriptor.length != 0)
            (writable ? chain.writable : chain.readable)
                .push_back({Iova(descriptor.address), descriptor.length});
        if ((descriptor.flags & continues) == 0)
            return Taken::chain;
        if (descriptor.next >= place_.entries || length == place_.entries) // a loop
            return Taken::invalid_chain;
        if (!read_descriptors(bus, descriptor.next, std::span(&descriptor, 1)))
            return Taken::unreachable;
    }
}

bool VirtioQueue::uses(IovaRange range, BusMaster& bus) const {
    std::uint16_t end = 0;
    if (!read_into(bus, place_.available + ring_index, std::span(&end, 1)))
        return false;
    const unsigned waiting = fetched_heads_ - next_head_;
    unsigned left = place_.entries; // a descriptor is in one chain
    for (auto at = static_cast<std::uint16_t>(fetched_ - waiting); at != end; ++at) {
        std::uint16_t index = 0;
        const std::uint64_t entry = at % place_.entries * sizeof index;
        if (!read_into(bus, place_.available + ring_entries + entry, std::span(&index, 1)))
            return false;
        for (Descriptor each{.flags = continues}; (each.flags & continues) != 0;
             index = each.next) {
            if (left-- == 0 || index >= place_.entries ||
                !read_descriptors(bus, index, std::span(&each, 1)))
                return false;
            const auto named = IovaRange::make(Iova(each.address), ByteCount(each.length));
            if (named && named->overlaps(range))
                return true;
        }
    }
    return false;
}

VirtioQueue::Published VirtioQueue::publish(BusMaster& bus) {
    if (returned_.empty())
        return Published::quietly;
    std::span<const UsedEntry> rest(returned_);
    while (!rest.empty()) {
        const unsigned first = used_ % place_.entries;
        const std::size_t count = std::min<std::size_t>(rest.size(), place_.entries - first);
        if (!write_from(bus, place_.used + ring_entries + first * sizeof(UsedEntry),
                        rest.first(count)))
            return Published::unreachable;
        used_ = static_cast<std::uint16_t>(used_ + count);
        rest = rest.subspan(count);
    }
    returned_.clear();
    std::uint16_t flags = 0;
    if (!write_from(bus, place_.used + ring_index, std::span<const std::uint16_t>(&used_, 1)) ||
        !read_into(bus, place_.available, std::span(&flags, 1)))
        return Published::unreachable;
    return (flags & no_interrupt) != 0 ? Published::quietly : Published::with_interrupt;
}

bool VirtioQueue::want_notifications(BusMaster& bus, bool want) {
    if (std::exchange(notifies_, want) == want)
        return true;
    const std::uint16_t flags = want ? 0 : no_notification;
    return write_from(bus, place_.used, std::span<const std::uint16_t>(&flags, 1));
}

} // namespace moat::machine::soft
