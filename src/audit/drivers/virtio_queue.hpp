// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Queue: a virtqueue with memory of its own and a request at a time. virtio_split.cpp and
// virtio_packed.cpp are its layouts; virtio_pci.hpp chooses one and tells the device.
// Source: Virtual I/O Device (VIRTIO) 1.2: 2.6 (virtqueues).
#pragma once

#include "audit/driver.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace moat::audit::virtio {

/// A piece of a request: what the device reads comes before what it writes.
struct Part {
    Iova iova;
    std::uint64_t bytes = 0;
    bool device_writes = false;
};

/// What the driver and the device agreed on.
struct Terms {
    bool tables = false; ///< the descriptors of a request lie in a table of their own
    bool events = false; ///< a notification is asked for by the entry that causes it
};

/// The three areas of a queue, whose addresses the device gets, and memory for indirect tables.
struct QueueMemory {
    Buffer descriptors{};
    Buffer driver{}; ///< the device reads it
    Buffer device{}; ///< the device writes it
    Buffer table{};  ///< of queues with Terms::tables
};

/// At most one request is in it.
class Queue {
  public:
    static constexpr unsigned depth = 8;
    static constexpr std::size_t most_parts = 4; ///< of a request

    virtual ~Queue() = default;
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    /// Whether the device used every request.
    [[nodiscard]] virtual bool is_idle() const = 0;

    /// How many bytes the device reports to have written for the last request, which it used.
    [[nodiscard]] virtual std::uint32_t written() const = 0;

  protected:
    Queue(const QueueMemory& memory, Terms terms) : memory_(memory), terms_(terms) {}

    [[nodiscard]] const QueueMemory& memory() const { return memory_; }

    [[nodiscard]] const Terms& terms() const { return terms_; }

    [[nodiscard]] static std::atomic_ref<std::uint16_t> half_word(const Buffer& buffer,
                                                                  std::size_t index) {
        return std::atomic_ref(reinterpret_cast<std::uint16_t*>(buffer.bytes.data())[index]);
    }

  private:
    friend class VirtioDriver;

    /// Empties it, for a device that is reset.
    virtual void restart() = 0;

    virtual void post(std::span<const Part> parts) = 0;

    /// Whether the device asks to be notified of the last request.
    [[nodiscard]] virtual bool wants_bell() const = 0;

    const QueueMemory memory_;
    const Terms terms_;
    std::uint16_t number_ = 0;
    unsigned vector_ = 0;
    std::uint64_t bell_ = 0;
};

/// Flags of a descriptor in both layouts.
inline constexpr std::uint16_t goes_on = 1;
inline constexpr std::uint16_t device_writes = 2;
inline constexpr std::uint16_t in_a_table = 4;

struct Layout {
    std::array<Need, 3> needs; ///< descriptors, driver, device
    std::unique_ptr<Queue> (*create)(const QueueMemory& memory, Terms terms);
};

extern const Layout split_layout;
extern const Layout packed_layout;

} // namespace moat::audit::virtio
