// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The split layout of a virtqueue: a table of descriptors and two rings of their numbers.
// Source: VIRTIO 1.2: 2.7 (split virtqueues).
#include "audit/drivers/virtio_queue.hpp"

#include <algorithm>
#include <cstring>

namespace moat::audit::virtio {

namespace {

/// 2.7.5
struct SplitDescriptor {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint16_t flags = 0;
    std::uint16_t next = 0;
};

static_assert(sizeof(SplitDescriptor) == 16);

/// 2.7.8
struct UsedEntry {
    std::uint32_t first = 0; ///< the descriptor
    std::uint32_t written = 0;
};

constexpr unsigned split_depth = Queue::depth;

/// Indices of 16-bit words: of the index in both rings, and of what follows their entries.
constexpr std::size_t index_at = 1;
constexpr std::size_t used_event_at = 2 + split_depth;
constexpr std::size_t available_event_at = 2 + std::size_t{4} * split_depth;

class SplitQueue final : public Queue {
  public:
    SplitQueue(const QueueMemory& memory, Terms terms) : Queue(memory, terms) {}

    [[nodiscard]] bool is_idle() const override {
        return half_word(memory().device, index_at).load(std::memory_order_acquire) == posted_;
    }

    [[nodiscard]] std::uint32_t written() const override {
        UsedEntry last;
        const std::size_t at = 4 + sizeof last * ((posted_ - 1U) % depth);
        std::memcpy(&last, memory().device.bytes.data() + at, sizeof last);
        return last.written;
    }

  private:
    void restart() override {
        std::ranges::fill(memory().driver.bytes, std::byte{0});
        std::ranges::fill(memory().device.bytes, std::byte{0});
        posted_ = 0;
    }

    /// The chain begins at descriptor 0; the index publishes it.
    void post(std::span<const Part> parts) override {
        std::array<SplitDescriptor, most_parts> chain;
        std::uint16_t count = 0;
        for (const Part& part : parts) {
            const bool is_last = count + 1U == parts.size();
            chain.at(count) = {part.iova.value(), static_cast<std::uint32_t>(part.bytes),
                               static_cast<std::uint16_t>((is_last ? 0 : goes_on) |
                                                          (part.device_writes ? device_writes : 0)),
                               static_cast<std::uint16_t>(is_last ? 0 : count + 1)};
            ++count;
        }
        const std::uint32_t bytes = count * static_cast<std::uint32_t>(sizeof(SplitDescriptor));
        const auto [descriptors, driver, _, table] = memory();
        std::memcpy((terms().tables ? table : descriptors).bytes.data(), chain.data(), bytes);
        if (terms().tables) {
            const SplitDescriptor whole{table.iova.value(), bytes, in_a_table, 0};
            std::memcpy(descriptors.bytes.data(), &whole, sizeof whole);
        }
        half_word(driver, 2 + posted_ % depth).store(0, std::memory_order_relaxed);
        // The device interrupts when it uses the entry of this number (2.7.7).
        half_word(driver, used_event_at)
            .store(terms().events ? posted_ : 0, std::memory_order_relaxed);
        ++posted_;
        half_word(driver, index_at).store(posted_, std::memory_order_release);
    }

    /// The device wants to know of the entry of the number that it wrote (2.7.10).
    [[nodiscard]] bool wants_bell() const override {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        const auto wanted =
            half_word(memory().device, available_event_at).load(std::memory_order_acquire);
        return !terms().events || wanted == static_cast<std::uint16_t>(posted_ - 1);
    }

    std::uint16_t posted_ = 0;
};

} // namespace

/// The device reads back the index of the ring that it writes.
const Layout split_layout = {
    .needs = {{{"descriptor table", Direction::to_device, ByteCount(16 * split_depth), 4},
               {"available ring", Direction::to_device, ByteCount(6 + 2 * split_depth), 1},
               {"used ring", Direction::bidirectional, ByteCount(6 + 8 * split_depth), 2}}},
    .create = [](const QueueMemory& memory, Terms terms) -> std::unique_ptr<Queue> {
        return std::make_unique<SplitQueue>(memory, terms);
    }};

} // namespace moat::audit::virtio
