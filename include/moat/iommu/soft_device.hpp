// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device of the software IOMMU: its attachment, and the lanes through which it reaches memory.
// soft_iommu.hpp attaches it; the device's model uses the lanes.
#pragma once

#include "moat/iommu/detail/fault_queue.hpp"
#include "moat/iommu/detail/iotlb.hpp"
#include "moat/iommu/soft_domain.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace moat::iommu {

template <class M>
concept HostMemory = requires(const M& memory, PhysicalAddress physical, ByteCount size) {
    // The process's address of [physical, physical + size); nullptr if that is not memory. Called
    // inside accesses: no lock.
    { memory.find(physical, size) } -> std::same_as<std::byte*>;
};

/// Physical addresses are this process's own.
struct OwnMemory {
    [[nodiscard]] static std::byte* find(PhysicalAddress physical, ByteCount) {
        return reinterpret_cast<std::byte*>(physical.value());
    }
};

static_assert(HostMemory<OwnMemory>);

/// How far an access came. Like on a bus, the bytes before the refused one were transferred.
struct Transfer {
    ByteCount done = {};
    std::optional<fault::Record> fault = {};

    [[nodiscard]] bool complete() const { return !fault; }
};

/// What a device's accesses go through. Immutable; replaced as a whole.
template <class Domain>
struct Attachment {
    enum class Kind : std::uint8_t { blocked, identity, translated };

    Kind kind = Kind::blocked;
    Domain* domain = nullptr; ///< if translated
    std::uint64_t serial = 0; ///< unique: a lane drops its cache when it changes
};

template <class Domain_, HostMemory Memory_ = OwnMemory>
class SoftDevice {
  public:
    using Domain = Domain_;
    using Memory = Memory_;
    using Sync = typename Domain::Tree::Sync;
    using Attached = Attachment<Domain>;

    SoftDevice(fault::Source source, const Memory& memory, FaultHandler handler)
        : source_(source), memory_(memory), handler_(handler) {}

    SoftDevice(const SoftDevice&) = delete;
    SoftDevice& operator=(const SoftDevice&) = delete;

    [[nodiscard]] fault::Source source() const { return source_; }

    [[nodiscard]] FaultQueue<Sync>& faults() { return faults_; }

    /// On return no access goes through the previous attachment. `next` outlives the attachment.
    /// Not from inside an access; one thread at a time.
    void attach(const Attached& next) {
        attached_.store(&next, std::memory_order_release);
        Sync::synchronize();
    }

    /// As `attach`, to nothing.
    void detach() { attach(blocked); }

    [[nodiscard]] const Attached& attached() const {
        return *attached_.load(std::memory_order_acquire);
    }

    [[nodiscard]] const Memory& memory() const { return memory_; }

    void report(const fault::Record& record, const FaultHandler& of_domain) {
        faults_.push(record);
        handler_(record);
        of_domain(record);
    }

  private:
    inline static constexpr Attached blocked{};

    const fault::Source source_;
    const Memory& memory_;
    const FaultHandler handler_;
    typename Sync::template Atomic<const Attached*> attached_{&blocked};
    FaultQueue<Sync> faults_;
};

/// One thread's access to memory for one device, with a cache of translations. Used by one thread
/// at a time; a device may have many lanes, and outlives them.
template <class Device_>
class Lane {
  public:
    using Device = Device_;
    using Domain = typename Device::Domain;
    using Sync = typename Device::Sync;
    using Attached = typename Device::Attached;

    using Section = typename Sync::ReadSection;

    /// While it lives, the lane's accesses count as one, so entering and leaving costs once. A
    /// strict unmap waits for the whole batch, so use one per command. Faults are reported when it
    /// ends.
    class Batch {
      public:
        explicit Batch(Lane& lane) : lane_(lane) {
            MOAT_CHECK(lane.batch_ == nullptr, "one batch of a lane at a time");
            section_.emplace();
            lane.batch_ = &*section_;
        }

        ~Batch() {
            lane_.batch_ = nullptr;
            section_.reset();
            lane_.tell();
        }

        Batch(const Batch&) = delete;
        Batch& operator=(const Batch&) = delete;

        [[nodiscard]] const Section& section() const { return *section_; }

      private:
        Lane& lane_;
        std::optional<Section> section_;
    };

    explicit Lane(Device& device) : device_(device) {}

    /// The device reads memory.
    Transfer read(Iova from, std::span<std::byte> into) {
        return access<fault::Access::read>(
            from, ByteCount(into.size()), [&](std::byte* memory, std::size_t at, std::size_t size) {
                std::memcpy(into.data() + at, memory, size);
            });
    }

    /// The device writes memory.
    Transfer write(Iova to, std::span<const std::byte> from) {
        return access<fault::Access::write>(
            to, ByteCount(from.size()), [&](std::byte* memory, std::size_t at, std::size_t size) {
                std::memcpy(memory, from.data() + at, size);
            });
    }

    /// Calls use(memory, offset, size) for each piece of [start, start + size), in order, as long
    /// as the device may reach it. Records a refusal, and calls the handlers after the access has
    /// ended. An unmap that returns before or after is strict: see generations.hpp.
    template <fault::Access Kind, class Use>
    Transfer access(Iova start, ByteCount size, Use&& use) {
        if (batch_ != nullptr)
            return access_within<Kind>(*batch_, start, size, use);
        Transfer transfer;
        {
            const Section section;
            transfer = access_within<Kind>(section, start, size, use);
        }
        if (transfer.fault) [[unlikely]]
            tell();
        return transfer;
    }

    /// The process's address of the byte at `address`; nullptr if the device may not reach it,
    /// without a fault. Valid during the batch.
    template <fault::Access Kind>
    [[nodiscard, gnu::always_inline]] std::byte* translate(const Batch& batch, Iova address) {
        fault::Reason reason{};
        return piece<Kind>(batch.section(), device_.attached(), address.value(), ByteCount(1),
                           reason)
            .memory;
    }

  private:
    /// A refusal, reported after the sections have closed.
    struct Refusal {
        fault::Record record;
        FaultHandler of_domain;
    };

    template <fault::Access Kind, class Use>
    [[gnu::always_inline]] Transfer access_within(const Section& open, Iova start, ByteCount size,
                                                  Use&& use) {
        fault::Reason reason = fault::Reason::unknown;
        const Attached& attached = device_.attached();
        Transfer transfer{.done = pieces<Kind>(open, attached, start, size, use, reason)};
        if (transfer.done != size) [[unlikely]]
            refuse<Kind>(transfer, start, size, reason, attached);
        return transfer;
    }

    /// In the order of the refusals; handlers may use this lane's device.
    [[gnu::noinline, gnu::cold]] void tell() {
        std::vector<Refusal> refusals;
        refusals.swap(refusals_);
        for (Refusal& each : refusals)
            device_.report(each.record, each.of_domain);
    }

    struct Piece {
        std::byte* memory;
        std::uint64_t size; ///< contiguous from `memory` on, at least
    };

    template <fault::Access Kind, class Use>
    [[gnu::always_inline]] ByteCount pieces(const Section& open, const Attached& attached,
                                            Iova start, ByteCount size, Use&& use,
                                            fault::Reason& reason) {
        std::uint64_t done = 0;
        while (done != size.value()) {
            const std::uint64_t address = start.value() + done;
            if (address < start.value()) [[unlikely]] { // past the last address
                reason = fault::Reason::address_size;
                break;
            }
            const ByteCount left(size.value() - done);
            const Piece found = piece<Kind>(open, attached, address, left, reason);
            if (found.memory == nullptr) [[unlikely]]
                break;
            const std::uint64_t here = std::min(left.value(), found.size);
            use(found.memory, done, here);
            done += here;
        }
        return ByteCount(done);
    }

    template <fault::Access Kind>
    [[gnu::always_inline]] Piece piece(const Section& open, const Attached& attached,
                                       std::uint64_t address, ByteCount left,
                                       fault::Reason& reason) {
        if (attached.serial == serial_) [[likely]] {
            const auto& generations = attached.domain->invalidator();
            const std::uint64_t large = generations.large(address);
            if (const Translation* const hit = small_.template find<Kind>(
                    address, generations.small(address, large))) [[likely]]
                return {hit->memory_at(address), to_block_end(address, small_block_lg2)};
            if (const Translation* const hit = large_.template find<Kind>(address, large))
                return {hit->memory_at(address), to_block_end(address, large_block_lg2)};
        }
        return find_piece<Kind>(open, attached, address, left, reason);
    }

    [[nodiscard]] static std::uint64_t to_block_end(std::uint64_t address, unsigned lg2) {
        return bit(lg2) - (address & low_bits(lg2));
    }

    template <fault::Access Kind>
    [[gnu::noinline]] Piece find_piece(const Section& open, const Attached& attached,
                                       std::uint64_t address, ByteCount left,
                                       fault::Reason& reason) {
        if (attached.serial != serial_) [[unlikely]]
            if (!turn_to(attached))
                return elsewhere(attached, address, left, reason);
        return walk<Kind>(open, *attached.domain, address, left, reason);
    }

    /// Drops the cache of another attachment. Return: whether there are tables to walk.
    [[gnu::noinline]] bool turn_to(const Attached& attached) {
        if (attached.kind != Attached::Kind::translated)
            return false;
        small_.clear();
        large_.clear();
        serial_ = attached.serial;
        return true;
    }

    [[gnu::noinline]] Piece elsewhere(const Attached& attached, std::uint64_t address,
                                      ByteCount left, fault::Reason& reason) {
        if (attached.kind == Attached::Kind::blocked) {
            reason = fault::Reason::blocked;
            return {};
        }
        const ByteCount here(std::min(left.value(), to_block_end(address, small_block_lg2)));
        reason = fault::Reason::not_present;
        return {device_.memory().find(PhysicalAddress(address), here), here.value()};
    }

    /// Reads the generation before the tables: a leaf that is being removed is then cached under an
    /// old one.
    template <fault::Access Kind>
    [[gnu::always_inline]] Piece walk(const Section& open, Domain& domain, std::uint64_t address,
                                      ByteCount left, fault::Reason& reason) {
        const std::uint64_t large = domain.invalidator().large(address);
        const std::uint64_t small = domain.invalidator().small(address, large);
        Piece found{};
        const bool mapped = domain.reader(open).with_leaf(
            Iova(address), [&](auto leaf) __attribute__((always_inline)) {
                if (leaf.size_lg2() < large_block_lg2)
                    found = take<Kind>(small_, domain, leaf, address, small, reason);
                else
                    found = take<Kind>(large_, domain, leaf, address, large, reason);
            });
        if (!mapped) [[unlikely]]
            reason = domain.limits().aperture.contains(Iova(address)) ? fault::Reason::not_present
                                                                      : fault::Reason::address_size;
        if (found.memory != nullptr && domain.bounds() != nullptr) [[unlikely]]
            return within(domain, address, {found.memory, std::min(found.size, left.value())},
                          reason);
        return found;
    }

    /// The block that contains `address`, cached from now on unless byte bounds are registered.
    template <fault::Access Kind, std::size_t Entries, unsigned BlockLg2, class Leaf>
    [[gnu::always_inline]] Piece take(Iotlb<Entries, BlockLg2>& cache, const Domain& domain,
                                      Leaf leaf, std::uint64_t address, std::uint64_t generation,
                                      fault::Reason& reason) {
        const Attributes attributes = leaf.attributes();
        const bool readable = has(attributes, Attributes::read);
        const bool writable = has(attributes, Attributes::write);
        if (!(Kind == fault::Access::write ? writable : readable)) [[unlikely]] {
            reason = fault::Reason::permission;
            return {};
        }
        const std::uint64_t in_leaf = address & low_bits(leaf.size_lg2()) & ~low_bits(BlockLg2);
        std::byte* const block = device_.memory().find(
            PhysicalAddress(leaf.physical().value() + in_leaf), ByteCount(bit(BlockLg2)));
        if (block == nullptr) [[unlikely]] {
            reason = fault::Reason::hardware;
            return {};
        }
        if (domain.bounds() == nullptr) [[likely]]
            cache.fill(address, generation, block, readable, writable);
        return {block + (address & low_bits(BlockLg2)), to_block_end(address, BlockLg2)};
    }

    Piece within(const Domain& domain, std::uint64_t address, Piece piece, fault::Reason& reason) {
        const ByteBounds* const bounds = domain.bounds();
        if (bounds == nullptr) // unregistered by another thread
            return piece;
        piece.size = bounds->inside(bounds->context, Iova(address), ByteCount(piece.size)).value();
        if (piece.size != 0)
            return piece;
        reason = fault::Reason::out_of_bounds;
        return {};
    }

    template <fault::Access Kind>
    [[gnu::noinline, gnu::cold]] void refuse(Transfer& transfer, Iova start, ByteCount size,
                                             fault::Reason reason, const Attached& attached) {
        const Iova first(start.value() +
                         transfer.done.value());      // may wrap: the device chose the address
        const std::uint64_t most = 0 - first.value(); // up to 2^64; 0 is all of it
        const std::uint64_t left = size.value() - transfer.done.value();
        const ByteCount refused(most == 0 ? left : std::min(left, most));
        fault::Record record =
            fault::exact_record(device_.source(), Kind, {first, refused}, reason);
        record.time_ns = Sync::now();
        transfer.fault = record;
        refusals_.push_back(
            {record, attached.domain != nullptr ? attached.domain->handler() : FaultHandler{}});
    }

    static constexpr std::size_t small_entries = 256;
    static constexpr std::size_t large_entries = 32;

    Device& device_;
    const Section* batch_ = nullptr; ///< the open batch
    std::vector<Refusal> refusals_;
    /// The attachment of the cached translations; none at first.
    std::uint64_t serial_ = ~std::uint64_t{0};
    Iotlb<small_entries, small_block_lg2> small_;
    Iotlb<large_entries, large_block_lg2> large_;
};

} // namespace moat::iommu
