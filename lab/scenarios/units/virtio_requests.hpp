// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped request queue of virtio-iommu, with rings of two, and a model of the device. Indices
// and entries share words, so every word is atomic here.
// Source: virtio 1.2, 2.7.13 "Supplying Buffers to The Device" and 2.7.14 "Receiving Used Buffers".
#pragma once

#include "moat/iommu/virtio.hpp"

#include "lab/scenarios/units/model.hpp"

#include <optional>

namespace moat::scenarios::units {

/// Requests need no registers but these: the driver notifies the device, and the device interrupts
/// its polls.
template <class Sync>
struct VirtioRegisters : Registers<Sync> {
    bool relax(unsigned) {
        answered.wait();
        return !this->is_gone();
    }

    Signal notified;
    Signal answered;
};

template <class Sync>
class VirtioRequests : public Unit<Sync, VirtioRegisters<Sync>> {
    using Base = Unit<Sync, VirtioRegisters<Sync>>;

  public:
    static explore::Program program(const Configuration& text) {
        return submitting_program<VirtioRequests>(text);
    }

    /// Fills the first slot of the rings, so that the threads' two requests wrap.
    explicit VirtioRequests(const Bounds& bounds) : Base(bounds) {
        const auto done = requests_.run(iommu::virtio::unmap_request(0, range_of(0)), [this] {
            finish(0, 0, page_ + status_at, iommu::virtio::Status::ok);
        });
        ExploredSync::check(done.has_value(), "an answer in place is taken");
    }

    Result<void> send(unsigned first, unsigned count) {
        for (unsigned i = first; i != first + count; ++i) {
            const auto request = iommu::virtio::unmap_request(i, range_of(i));
            if (const auto done = requests_.run(request, [this] { registers_.notified.raise(); });
                !done)
                return done;
        }
        return {};
    }

    void run_unit() {
        for (std::uint16_t taken = 1; this->has_work();) {
            registers_.notified.wait();
            for (; taken != half_word(available_at + 2); ++taken) {
                const std::uint16_t head = half_word(available_at + 4 + 2 * (taken % slots));
                if (this->fails([&] { answer(taken, head, iommu::virtio::Status::invalid); })) {
                    registers_.answered.raise(); // or the driver's time runs out
                    return;
                }
                answer(taken, head, iommu::virtio::Status::ok);
                registers_.answered.raise();
            }
        }
    }

  private:
    using Base::memory_;
    using Base::registers_;
    using Requests = iommu::virtio::RequestQueue<VirtioRegisters<Sync>, ArenaTables, Sync, 2>;
    using Atomic = ExploredSync::AtomicRef<std::uint64_t>;

    static constexpr unsigned slots = Requests::Rings::slots;
    /// Offsets of the rings behind two descriptors.
    static constexpr unsigned available_at = 32;
    static constexpr unsigned used_at = 40;
    static constexpr ByteCount status_at{64};

    [[nodiscard]] static IovaRange range_of(std::uint64_t command) {
        return {Iova(command << 12), ByteCount(4096)};
    }

    void answer(std::uint16_t taken, std::uint16_t head, iommu::virtio::Status says) {
        ExploredSync::check(head < slots, "the ring has a head that is no descriptor");
        const PhysicalAddress page(load(2 * head));
        const PhysicalAddress status(load(2 * (load(2 * head + 1) >> 48)));
        const std::uint64_t first = Atomic(memory_.words(page)[0]).load(std::memory_order_relaxed);
        const std::uint64_t start = Atomic(memory_.words(page)[1]).load(std::memory_order_relaxed);
        ExploredSync::check((first & 0xff) == 4 && range_of(first >> 32).start() == Iova(start),
                            "the device reads a request that is half of another");
        ExploredSync::check(status == page + status_at,
                            "the request's second descriptor is not the status's");
        if (says == iommu::virtio::Status::ok) {
            this->consume(first >> 32);
            this->execute_consumed();
        }
        finish(taken, head, status, says);
    }

    /// Only the device writes the used ring. An element lies across two words.
    void finish(std::uint16_t taken, std::uint16_t head, PhysicalAddress status,
                iommu::virtio::Status says) {
        Atomic(*memory_.words(status))
            .store(static_cast<std::uint64_t>(says), std::memory_order_relaxed);
        const unsigned at = used_at / 8 + taken % slots;
        store(at, (load(at) & low_bits(32)) | std::uint64_t{head} << 32, std::memory_order_relaxed);
        store(at + 1, (load(at + 1) & ~low_bits(32)) | 4, std::memory_order_relaxed);
        constexpr std::uint64_t index = 0xffffULL << 16;
        store(used_at / 8,
              (load(used_at / 8) & ~index) | static_cast<std::uint64_t>(taken + 1) << 16,
              std::memory_order_release);
    }

    [[nodiscard]] std::uint16_t half_word(unsigned byte) const {
        return static_cast<std::uint16_t>(load(byte / 8) >> byte % 8 * 8);
    }

    [[nodiscard]] std::uint64_t load(std::uint64_t word) const {
        return Atomic(memory_.words(rings_)[word]).load(std::memory_order_acquire);
    }

    void store(std::uint64_t word, std::uint64_t value, std::memory_order order) {
        Atomic(memory_.words(rings_)[word]).store(value, order);
    }

    PhysicalAddress rings_ = *memory_.allocate(6);
    PhysicalAddress page_ = *memory_.allocate(7);
    Requests requests_{registers_, memory_, rings_, page_};
};

} // namespace moat::scenarios::units
