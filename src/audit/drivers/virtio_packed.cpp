// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The packed layout of a virtqueue: one ring of descriptors, which the device overwrites as it uses
// them, and a word for each side's notifications.
// Source: VIRTIO 1.2: 2.8 (packed virtqueues).
#include "audit/drivers/virtio_queue.hpp"

#include <algorithm>
#include <cstring>

namespace moat::audit::virtio {

namespace {

/// 2.8.13
struct PackedDescriptor {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint16_t id = 0;
    std::uint16_t flags = 0;
};

static_assert(sizeof(PackedDescriptor) == 16);

/// Flags that a descriptor has in this layout only (2.8.1).
constexpr std::uint16_t available_flag = 1U << 7;
constexpr std::uint16_t used_flag = 1U << 15;

/// 2.8.14: two half words, of the entry and of these (2.8.10).
constexpr std::size_t event_entry = 0;
constexpr std::size_t event_kind = 1;
constexpr std::uint16_t no_event = 1;
constexpr std::uint16_t event_of_an_entry = 2;

constexpr unsigned packed_depth = Queue::depth;

/// A place in the ring, with the wrap counter there.
struct Place {
    unsigned slot = 0;
    bool wrap = true;

    void advance() {
        if (++slot == packed_depth)
            *this = {.slot = 0, .wrap = !wrap};
    }

    [[nodiscard]] std::uint16_t as_event() const {
        return static_cast<std::uint16_t>(slot | (wrap ? 1U << 15 : 0));
    }

    /// How far `event` lies ahead, in entries of two passes.
    [[nodiscard]] unsigned distance_to(std::uint16_t event) const {
        const auto number = [](unsigned at, bool first_pass) {
            return at + (first_pass ? 0 : packed_depth);
        };
        const unsigned there = number(event & 0x7fffU, (event >> 15) != 0);
        return (there + 2 * packed_depth - number(slot, wrap)) % (2 * packed_depth);
    }
};

class PackedQueue final : public Queue {
  public:
    PackedQueue(const QueueMemory& memory, Terms terms) : Queue(memory, terms) {}

    /// The device marks the first descriptor of a request as used.
    [[nodiscard]] bool is_idle() const override {
        const std::uint16_t marked = first_.wrap ? available_flag | used_flag : 0;
        return entries_ == 0 ||
               (flags().load(std::memory_order_acquire) & (available_flag | used_flag)) == marked;
    }

    /// Whatever the flag `device_writes` says, which validates the length (2.8.4): QEMU 7.2 never
    /// sets it.
    [[nodiscard]] std::uint32_t written() const override {
        PackedDescriptor used;
        std::memcpy(&used, entry(first_), sizeof used);
        return used.length;
    }

  private:
    void restart() override {
        for (const Buffer& each : {memory().descriptors, memory().driver, memory().device})
            std::ranges::fill(each.bytes, std::byte{0});
        first_ = next_ = {};
        entries_ = 0;
    }

    /// The flags of the first descriptor publish the request (2.8.6).
    void post(std::span<const Part> parts) override {
        std::array<PackedDescriptor, most_parts> list;
        std::size_t count = 0;
        for (const Part& part : parts)
            list.at(count++) = {.address = part.iova.value(),
                                .length = static_cast<std::uint32_t>(part.bytes),
                                .flags = part.device_writes ? device_writes : std::uint16_t{0}};
        if (terms().tables) { // 2.8.7: no other flags in it
            const std::size_t bytes = count * sizeof(PackedDescriptor);
            std::memcpy(memory().table.bytes.data(), list.data(), bytes);
            list[0] = {.address = memory().table.iova.value(),
                       .length = static_cast<std::uint32_t>(bytes),
                       .flags = in_a_table};
            count = 1;
        }
        first_ = next_;
        entries_ = static_cast<unsigned>(count);
        std::uint16_t first_flags = 0;
        for (std::size_t i = 0; i != count; ++i) {
            PackedDescriptor& each = list.at(i);
            const std::uint16_t flags = each.flags | (i + 1 != count ? goes_on : 0) |
                                        (next_.wrap ? available_flag : used_flag);
            (i == 0 ? first_flags : each.flags) = flags;
            std::memcpy(entry(next_), &each,
                        i == 0 ? offsetof(PackedDescriptor, flags) : sizeof each);
            next_.advance();
        }
        // The device interrupts when it uses this entry.
        const Buffer& events = memory().driver;
        half_word(events, event_entry).store(first_.as_event(), std::memory_order_relaxed);
        half_word(events, event_kind)
            .store(terms().events ? event_of_an_entry : 0, std::memory_order_relaxed);
        flags().store(first_flags, std::memory_order_release);
    }

    [[nodiscard]] bool wants_bell() const override {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const Buffer& events = memory().device;
        const unsigned kind = half_word(events, event_kind).load(std::memory_order_acquire) & 3U;
        if (kind != event_of_an_entry)
            return kind != no_event;
        const std::uint16_t event = half_word(events, event_entry).load(std::memory_order_acquire);
        return first_.distance_to(event) < entries_;
    }

    [[nodiscard]] std::byte* entry(Place place) const {
        return memory().descriptors.bytes.data() + place.slot * sizeof(PackedDescriptor);
    }

    /// Of the first descriptor of the last request.
    [[nodiscard]] std::atomic_ref<std::uint16_t> flags() const {
        constexpr std::size_t halves = sizeof(PackedDescriptor) / 2;
        return half_word(memory().descriptors, halves * first_.slot + halves - 1);
    }

    Place first_{}; ///< of the last request
    Place next_{};
    unsigned entries_ = 0; ///< of the last request; 0 before any
};

} // namespace

const Layout packed_layout = {
    .needs = {{{"descriptor ring", Direction::bidirectional, ByteCount(16 * packed_depth), 4},
               {"driver event suppression", Direction::to_device, ByteCount(4), 2},
               {"device event suppression", Direction::bidirectional, ByteCount(4), 2}}},
    .create = [](const QueueMemory& memory, Terms terms) -> std::unique_ptr<Queue> {
        return std::make_unique<PackedQueue>(memory, terms);
    }};

} // namespace moat::audit::virtio
