// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Tracker: records who mapped what, and checks later calls against it. It reports misuse to the
// space's listener and touches no page table. registry.hpp finds the mappings.
#pragma once

#include "moat/dma/detail/sampling.hpp"
#include "moat/dma/detail/stack_depot.hpp"
#include "moat/dma/memory.hpp"
#include "moat/dma/options.hpp"
#include "moat/dma/registry.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

namespace moat::dma {

/// Thread-safe. Labels outlive it.
template <SyncPolicy Sync>
class Tracker {
  public:
    explicit Tracker(const SpaceConfig& config)
        : guards_(config.options.guard_before, config.options.guard),
          one_stack_in_(config.options.stacks), sampled_of_(config.options.sample),
          listener_(config.listener), capture_(config.capture),
          // An address that leaves the samples' quarantine may become one that is not sampled.
          registry_(sampled_of_ != 0 ? Sampling<Sync>::remembered : config.options.history,
                    {guards_, sampled_of_}) {}

    /// Adds a mapping, which has the space's guards. `watched`: see Registered. Errors: no_memory.
    [[nodiscard, gnu::always_inline]] Result<void> add(Iova start, ByteCount size,
                                                       Direction direction, std::string_view label,
                                                       const fault::Event& mapped,
                                                       void* watched = nullptr) {
        return registry_.add(start, [&](PackedMapping& entry) __attribute__((always_inline)) {
            entry.set(start, size, direction, label, mapped, watched);
        });
    }

    /// The same, mapped now.
    [[nodiscard, gnu::always_inline]] Result<void>
    add(Iova start, ByteCount size, Direction direction, std::string_view label) {
        static constexpr fault::Event none{}; // copied from memory: fewer stores
        return one_stack_in_ == 0
                   ? add(start, size, direction, label, none)
                   : add(start, size, direction, label, event()); // no lock is held meanwhile
    }

    /// Adds a list with guards: once as a whole, and each segment separately, so that a fault
    /// beside a segment names that segment. Errors: no_memory; nothing is added then.
    [[nodiscard]] Result<void> add_parts(const MappedList& list, Direction direction,
                                         ByteCount guard, std::string_view label) {
        const IovaRange range(list.start, list.size);
        if (const auto added = lists_.add(list.start,
                                          [&](PackedMapping& entry) {
                                              entry.set(list.start, list.size, direction, label,
                                                        {});
                                          });
            !added)
            return added;
        const fault::Event mapped = event();
        for (const Segment& each : list.segments) {
            const PackedGuards guards(&each == &list.segments.front() ? guards_.before() : guard,
                                      &each == &list.segments.back() ? guards_.after() : guard);
            const Result<void> added = registry_.add(each.iova, [&](PackedMapping& entry) {
                entry.set_part(each.iova, each.size, guards, direction, label, mapped);
            });
            if (!added) {
                (void)lists_.remove(list.start, [](const PackedMapping&) { return true; });
                remove_parts(range);
                return added;
            }
        }
        return {};
    }

    /// Removes the mapping that begins at `iova`, before it is unmapped: a later access is reported
    /// with a past mapping. Errors: not_found, mismatch, which are reported.
    [[nodiscard, gnu::always_inline]] Result<void> remove(Iova iova, ByteCount size,
                                                          Direction direction) {
        static constexpr fault::Event none{};
        const auto is_it = [=](const PackedMapping& each) __attribute__((always_inline)) {
            return each.is(iova, size, direction);
        };
        const bool removed = one_stack_in_ == 0 ? registry_.retire(iova, none, is_it)
                                                : registry_.retire(iova, event(), is_it);
        return removed ? Result<void>{} : remove_list(iova, size, direction);
    }

    /// The same, and sets `was` to what was removed; a list with guards leaves it alone.
    [[nodiscard]] Result<void> take(Iova iova, ByteCount size, Direction direction,
                                    PackedMapping& was) {
        const bool removed = registry_.retire(iova, event(), [&](const PackedMapping& each) {
            if (!each.is(iova, size, direction))
                return false;
            was = each;
            return true;
        });
        return removed ? Result<void>{} : remove_list(iova, size, direction);
    }

    /// What `packed`, which begins at `iova`, stands for.
    [[nodiscard]] fault::Mapping unpack(const PackedMapping& packed, Iova iova) const {
        return registry_.unpack(packed, iova).mapping;
    }

    /// The mapping that begins at `iova`.
    [[nodiscard]] std::optional<fault::Mapping> find(Iova iova) {
        const auto found = registry_.find_at(iova);
        return found ? std::optional(found->mapping) : std::nullopt;
    }

    /// The mapping that begins at `iova`, for a sync of [iova + offset, + size). Errors: not_found,
    /// out_of_range, which are reported.
    [[nodiscard]] Result<Registered> find_for_sync(Iova iova, ByteCount offset, ByteCount size) {
        const std::optional<Registered> found = registry_.find_at(iova);
        const std::uint64_t end = std::numeric_limits<std::uint64_t>::max();
        const Iova first(offset.value() > end - iova.value() ? end : iova.value() + offset.value());
        if (!found)
            return report_misuse(DriverErrorKind::not_mapped, first, size, nullptr);
        const ByteCount all = found->mapping.range.size();
        if (offset > all || size.value() > all.value() - offset.value())
            return report_misuse(DriverErrorKind::outside, first, size, &found->mapping);
        return *found;
    }

    /// Denies the device every access in the records of the mapping at `iova`. Return: the mapping
    /// as it was, or nothing.
    [[nodiscard]] std::optional<fault::Mapping> deny_all(Iova iova) {
        const auto was = registry_.with(iova, [](PackedMapping& each) { each.deny_all(); });
        return was ? std::optional(was->mapping) : std::nullopt;
    }

    [[nodiscard]] std::optional<fault::Mapping> at_or_below(Iova iova) const {
        return registry_.at_or_below(iova);
    }

    /// Calls visit(Registered) for each living mapping and each part of a list with guards.
    template <class Visit>
    void for_each(Visit&& visit) const {
        registry_.for_each(visit);
    }

    /// Calls visit(Registered) for each living list with guards.
    template <class Visit>
    void for_each_list(Visit&& visit) const {
        lists_.for_each(visit);
    }

    [[nodiscard]] fault::Mapping describe(IovaRange range, Direction direction,
                                          std::string_view label,
                                          const fault::Event& mapped = {}) const {
        return {.range = range,
                .guard_before = guards_.before(),
                .guard_after = guards_.after(),
                .allows = allows_of(direction),
                .label = label,
                .mapped = mapped,
                .sampled_of = sampled_of_};
    }

    /// The time and the caller's stack, as often as the options ask for stacks.
    [[nodiscard]] fault::Event event() {
        return one_stack_in_ == 0 ? fault::Event{} : event_of_some();
    }

    /// The time, and the caller's stack if there is a way to take it.
    [[nodiscard]] fault::Event event_with_stack() {
        if (capture_ == nullptr)
            return {.time_ns = Sync::now()};
        std::array<std::uintptr_t, StackDepot<Sync>::most_frames> frames;
        const std::size_t count = capture_(frames);
        return {.time_ns = Sync::now(), .stack = stacks_.keep({frames.data(), count})};
    }

    void report(const DriverError& error) const {
        if (listener_.driver_error != nullptr)
            listener_.driver_error(listener_.context, error);
    }

    /// Reports each living mapping as a leak.
    void report_living() const {
        for_each([&](const Registered& each) { report_leak(each.mapping); });
    }

    void report_leak(const fault::Mapping& mapping) const {
        report({.kind = DriverErrorKind::leak, .range = mapping.range, .mapping = mapping});
    }

    /// Reports that devices may still reach `range`, with its mapping unless the history lost it.
    void report_held(IovaRange range) {
        DriverError error = {.kind = DriverErrorKind::not_invalidated, .range = range};
        const auto living = registry_.at_or_below(range.last());
        if (living && living->range.overlaps(range))
            error.mapping = *living;
        else if (const auto past = registry_.latest_at(range))
            error.mapping = past->mapping;
        report(error);
    }

    /// Diagnoses `record` and reports it.
    fault::Diagnosis report_fault(const fault::Record& record) {
        // Mappings that are not registered lie between sampled ones: distance is no evidence.
        const fault::Diagnosis diagnosis =
            registry_.diagnose(record, sampled_of_ != 0 ? fault::DiagnoseOptions{.reach = {}}
                                                        : fault::DiagnoseOptions{});
        if (listener_.fault != nullptr)
            listener_.fault(listener_.context, diagnosis);
        return diagnosis;
    }

  private:
    [[gnu::noinline]] Result<void> remove_list(Iova iova, ByteCount size, Direction direction) {
        if (lists_.remove(
                iova, [&](const PackedMapping& each) { return each.is(iova, size, direction); })) {
            remove_parts({iova, size});
            return {};
        }
        const auto found = find(iova);
        const bool same_size = found && found->range.size() == size;
        return report_misuse(!found      ? DriverErrorKind::not_mapped
                             : same_size ? DriverErrorKind::wrong_direction
                                         : DriverErrorKind::wrong_size,
                             iova, size, found ? &*found : nullptr);
    }

    void remove_parts(IovaRange list) {
        const fault::Event now = event();
        for (auto part = registry_.first_from(list.start()); part && list.contains(part->range);
             part = registry_.first_from(list.start()))
            (void)registry_.retire(part->range.start(), now,
                                   [](const PackedMapping&) { return true; });
    }

    [[gnu::noinline]] fault::Event event_of_some() {
        if (events_.fetch_add(1, std::memory_order_relaxed) % one_stack_in_ != 0)
            return {};
        return event_with_stack();
    }

    /// Of a call that named [iova, iova + size), cut off at 2^64.
    std::unexpected<Error> report_misuse(DriverErrorKind kind, Iova iova, ByteCount size,
                                         const fault::Mapping* found) {
        const std::uint64_t left = std::numeric_limits<std::uint64_t>::max() - iova.value();
        const IovaRange named(iova, size.value() > left ? ByteCount(left) : size);
        DriverError error = {.kind = kind, .range = named};
        if (found != nullptr)
            error.mapping = *found;
        else
            error.past = registry_.latest_at(named);
        report(error);
        return fail(found == nullptr                   ? ErrorCode::not_found
                    : kind == DriverErrorKind::outside ? ErrorCode::out_of_range
                                                       : ErrorCode::mismatch,
                    found == nullptr ? "no mapping begins here" : "another mapping begins here",
                    {"iova", iova.value()}, {"size", size.value()},
                    {"mapped", error.mapping.range.start().value()},
                    {"mapped_size", error.mapping.range.size().value()});
    }

    const PackedGuards guards_;
    const std::uint32_t one_stack_in_;
    const std::uint32_t sampled_of_;
    const Listener listener_;
    const CaptureStack capture_;
    Registry<Sync> registry_;
    Registry<Sync> lists_{0}; ///< ranges of the lists whose parts `registry_` has
    StackDepot<Sync> stacks_;
    typename Sync::template Atomic<std::uint64_t> events_{0};
};

} // namespace moat::dma
