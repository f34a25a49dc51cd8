// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Edit: every change to a PageTable. finish() invalidates what changed, then frees removed tables.
// This file checks all input; the operations in detail/ rely on it.
#pragma once

#include "moat/page_table/detail/cut.hpp"
#include "moat/page_table/detail/fold.hpp"
#include "moat/page_table/detail/map.hpp"
#include "moat/page_table/detail/protect.hpp"
#include "moat/page_table/detail/unmap.hpp"
#include "moat/page_table/invalidation.hpp"
#include "moat/page_table/page_table.hpp"

#include <array>
#include <cstdint>
#include <utility>

namespace moat {

/// One thread uses an edit, on ranges that no other thread edits meanwhile (see PageTable). Every
/// start and size is in bytes, a multiple of the format's granule. A failed operation changes
/// nothing; the edit stays usable. finish() must be called before the end.
template <class Tree>
class Edit {
  public:
    using F = typename Tree::Format;
    using Input = typename Tree::Input;
    using Invalidate = typename PendingInvalidation<Tree>::Callback;

    /// `invalidate` outlives the edit. finish() calls it with an InvalidationRequest; so do
    /// operations on ranges that lie apart, or on formats with break-before-make. It returns once
    /// the request is done. If it returns false, removed tables are held until the PageTable ends.
    Edit(PageTable<Tree>& page_table, Invalidate invalidate)
        : page_table_(page_table), pending_(invalidate, page_table.held_) {}

    /// Maps [start, start + size) to memory from `physical` on, with leaves as large as addresses,
    /// length and `options` allow. Hardware uses the leaves after finish() at the latest; hardware
    /// that caches no absent entries mostly uses them at once.
    /// Errors: empty, unaligned, overflow, out_of_range, overlap (also with a part), unsupported
    /// attributes, no_memory.
    [[gnu::always_inline]] Result<void> map(Input start, ByteCount size, PhysicalAddress physical,
                                            Attributes attributes, MapOptions options = {}) {
        if (try_map(page_table_, start, size, physical, attributes, options)) [[likely]]
            return {};
        return map_in_two_passes(start, size, physical, attributes, options);
    }

    /// The common case of map, in existing tables, without an edit: it has nothing to invalidate.
    /// Return: false, without a change, for any other case and for errors.
    [[nodiscard, gnu::always_inline]] static bool try_map(PageTable<Tree>& page_table, Input start,
                                                          ByteCount size, PhysicalAddress physical,
                                                          Attributes attributes,
                                                          MapOptions options = {}) {
        const std::uint64_t first = start.value();
        return page_table.with_root([=, &page_table](auto root) __attribute__((always_inline)) {
            constexpr unsigned levels = decltype(root)::level + 1;
            return map_is_good(first, size.value(), physical.value(), attributes, levels) &&
                   detail::Map<Tree>::try_run(
                       EntryWriter<Tree>(), root,
                       request_of(first, size.value(), physical.value(), attributes, options),
                       [&]() __attribute__((always_inline)) {
                           return map_two_tables(page_table, start, size, physical, attributes,
                                                 options);
                       });
        });
    }

    /// Maps consecutive pages from `start` on, page i to `memory_of(i)`, with leaves of a page; for
    /// scatter lists. Stops at a missing table, a present entry, or invalid input. Return: how many
    /// pages it mapped; map() of the next page continues or returns the error.
    template <class MemoryOf>
    [[nodiscard]] std::uint64_t map_pages(Input start, std::uint64_t count, MemoryOf&& memory_of,
                                          Attributes attributes) {
        return page_table_.with_root([&](auto root) -> std::uint64_t {
            constexpr unsigned levels = decltype(root)::level + 1;
            if (count == 0 || count > bit(F::output_bits - F::granule_lg2) ||
                !range_is_good(start.value(), start.value(), count << F::granule_lg2, levels) ||
                !F::representable(attributes))
                return 0;
            return detail::map_pages(writer_, root, start.value(), count, memory_of,
                                     F::attribute_word(attributes));
        });
    }

    /// Unmaps everything in [start, start + size); holes are allowed.
    /// Errors: empty, unaligned, overflow, out_of_range; refused (a leaf that lies partly inside
    /// may not be split, or not without break-before-make), no_memory (for splitting).
    [[gnu::always_inline]] Result<Unmapped> unmap(Input start, ByteCount size,
                                                  UnmapOptions options = {}) {
        if (options.flags == FinalFlags::ignore) [[likely]]
            if (const LeafCount done = try_unmap(page_table_, start, size); done.leaves != 0)
                [[likely]] {
                pending_.cover(start.value(), start.value() + (size.value() - 1));
                return Unmapped{.bytes = done.bytes, .leaves = done.leaves};
            }
        return unmap_in_two_passes(start, size, options);
    }

    /// The common case of unmap, without an edit: the caller invalidates the range. Return: nothing
    /// unmapped, and no change, for any other case and for errors.
    [[nodiscard, gnu::always_inline]] static LeafCount try_unmap(PageTable<Tree>& page_table,
                                                                 Input start, ByteCount size) {
        const std::uint64_t first = start.value();
        return page_table.with_root([=, &page_table](auto root) __attribute__((always_inline)) {
            constexpr unsigned levels = decltype(root)::level + 1;
            if (!range_is_good(first, first, size.value(), levels)) [[unlikely]]
                return LeafCount();
            return detail::Unmap<Tree>::try_run(
                EntryWriter<Tree>(), root, first, first + (size.value() - 1),
                [&]() __attribute__((always_inline)) {
                    return unmap_two_tables(page_table, start, size);
                });
        });
    }

    /// Sets the attributes of every leaf in [start, start + size); keeps accessed and dirty. Holes
    /// are allowed. Errors: unmap's; unsupported (attributes).
    Result<Protected> protect(Input start, ByteCount size, Attributes attributes,
                              ProtectOptions options = {}) {
        return in_range<Protected>(
            start, size, [&](auto root, std::uint64_t last) -> Result<Protected> {
                if (!F::representable(attributes))
                    return std::unexpected(attribute_error(attributes));
                return detail::Protect<Tree>(writer_, pending_, page_table_.memory(), options)
                    .run(root, start.value(), last, attributes);
            });
    }

    /// Splits the leaves that lie across either end of [start, start + size); translations stay the
    /// same. Return: how many leaves it split. Errors: unmap's.
    Result<std::uint64_t> split(Input start, ByteCount size, Break breaking = Break::forbidden) {
        return in_range<std::uint64_t>(
            start, size, [&](auto root, std::uint64_t last) -> Result<std::uint64_t> {
                detail::Cut<Tree> cut(writer_, pending_, page_table_.memory());
                if (auto done = cut.run(root, start.value(), last, PartialLeaf::split, breaking);
                    !done)
                    return std::unexpected(done.error());
                return cut.leaves_split();
            });
    }

    /// Replaces the table that covers exactly [start, start + size) with one leaf that maps the
    /// same. Keeps accessed and dirty; a writable leaf becomes dirty where hardware sets that bit.
    /// Errors: unmap's; unsupported (no such leaf size), mismatch (no table, holes, or leaves that
    /// differ in attributes or are not contiguous).
    Result<void> fold(Input start, ByteCount size, Break breaking = Break::forbidden) {
        return in_range<void>(start, size, [&](auto root, std::uint64_t last) -> Result<void> {
            if (!std::has_single_bit(size.value()) ||
                !is_aligned(start.value(), alignment_lg2(size.value())))
                return fail(ErrorCode::unaligned, "a leaf is aligned to its size",
                            {"start", start.value()}, {"size", size.value()});
            return detail::Fold<Tree>(writer_, pending_, page_table_.memory(), breaking)
                .run(root, start.value(), last);
        });
    }

    /// Clears `which` of accessed and dirty in every leaf that [start, start + size) touches, and
    /// calls `visit(Input start, ByteCount size, Attributes had)` for each leaf that had one.
    /// Hardware has one bit for a whole leaf, so a leaf partly outside is cleared and reported
    /// whole. Errors: unmap's; unsupported (the format has no such bits).
    template <class Visit>
    Result<void> clear_accessed_dirty(Input start, ByteCount size, Attributes which,
                                      Visit&& visit) {
        return in_range<void>(start, size, [&](auto root, std::uint64_t last) -> Result<void> {
            if (!has(flags_of_format(), which))
                return fail(ErrorCode::unsupported, "the format keeps no such flag",
                            {"attributes", static_cast<std::uint32_t>(which)});
            detail::ClearFlags<Tree, std::remove_reference_t<Visit>>(writer_, pending_, which,
                                                                     visit)
                .run(root, start.value(), last);
            return {};
        });
    }

    /// Adds a level on top for more addresses. The caller then writes the new `PageTable::root` to
    /// the hardware; the old root keeps its translations. Errors: unsupported (at the format's last
    /// level), no_memory, busy (another edit grew the tree).
    Result<void> grow()
        requires(F::fewest_levels != F::most_levels)
    {
        const Root old = page_table_.root();
        if (old.levels == F::most_levels)
            return fail(ErrorCode::unsupported, "the format has no more levels",
                        {"levels", old.levels});
        return page_table_.with_root(
            [&](auto root) -> Result<void> { return grow_above(root, old); });
    }

    /// Invalidates what this edit changed, then frees the removed tables. The edit may be used and
    /// finished again.
    [[gnu::always_inline]] void finish() { pending_.now(); }

  private:
    static constexpr unsigned highest_leaf_lg2 = entry_lg2<F>(highest_leaf_level<F>());

    static unsigned largest_leaf_lg2(const MapOptions& options) {
        const unsigned wish = options.largest_leaf_lg2;
        return wish < F::granule_lg2 ? F::granule_lg2 : wish > 63 ? 63 : wish;
    }

    static constexpr Attributes flags_of_format() {
        Attributes flags = Attributes::none;
        if (F::capabilities.accessed != FlagUpdate::none)
            flags |= Attributes::accessed;
        if (F::capabilities.dirty != FlagUpdate::none)
            flags |= Attributes::dirty;
        return flags;
    }

    [[gnu::always_inline]] static bool range_is_good(std::uint64_t aligned, std::uint64_t start,
                                                     std::uint64_t size, unsigned levels) {
        if (!is_aligned(aligned | size, F::granule_lg2))
            return false;
        if constexpr (F::sign_extended || input_bits<F>() == 64)
            return InputSpace<F>::of(start, levels).contains(start, size);
        return ((start | (size - 1) | (start + (size - 1))) >> input_bits<F>(levels)) == 0;
    }

    [[gnu::always_inline]] static bool physical_is_good(std::uint64_t physical,
                                                        std::uint64_t size) {
        return ((physical | (size - 1) | (physical + (size - 1))) >> F::output_bits) == 0;
    }

    [[gnu::always_inline]] static bool map_is_good(std::uint64_t start, std::uint64_t size,
                                                   std::uint64_t physical, Attributes attributes,
                                                   unsigned levels) {
        return range_is_good(start | physical, start, size, levels) &&
               physical_is_good(physical, size) && F::representable(attributes);
    }

    [[gnu::always_inline]] static detail::MapRequest
    request_of(std::uint64_t start, std::uint64_t size, std::uint64_t physical,
               Attributes attributes, const MapOptions& options) {
        return {start, start + (size - 1), physical, attribute_word(attributes),
                largest_leaf_lg2(options)};
    }

    /// The usual three come from a table: formats spend an instruction or more on each attribute.
    [[gnu::always_inline]] static Word attribute_word(Attributes attributes) {
        static constexpr std::array words = {Word{0}, F::attribute_word(Attributes::read),
                                             F::attribute_word(Attributes::write),
                                             F::attribute_word(read_write)};
        const auto index = static_cast<std::uint32_t>(attributes);
        return index < words.size() ? words[index] : F::attribute_word(attributes);
    }

    [[gnu::noinline, gnu::cold]] static std::unexpected<Error>
    range_error(std::uint64_t start, std::uint64_t size, unsigned levels) {
        const Result<void> checked = check_range<F>(start, size, F::granule_lg2, levels);
        MOAT_CHECK(!checked, "what was found wrong is wrong");
        return std::unexpected(checked.error());
    }

    static Error attribute_error(Attributes attributes) {
        return {ErrorCode::unsupported,
                "the format cannot express these attributes",
                {"attributes", static_cast<std::uint32_t>(attributes)}};
    }

    [[gnu::noinline, gnu::cold]] static std::unexpected<Error>
    map_error(std::uint64_t start, std::uint64_t size, std::uint64_t physical,
              Attributes attributes, unsigned levels) {
        if (!range_is_good(start, start, size, levels))
            return range_error(start, size, levels);
        if (!is_aligned(physical, F::granule_lg2))
            return fail(ErrorCode::unaligned, "the physical address must be a multiple of the page",
                        {"physical", physical}, {"page", bit(F::granule_lg2)});
        if (!physical_is_good(physical, size))
            return fail(ErrorCode::out_of_range, "the format cannot express the physical address",
                        {"physical", physical}, {"size", size}, {"physical_bits", F::output_bits});
        return std::unexpected(attribute_error(attributes));
    }

    // The four below take values and load the root again, so that the common case spills nothing.

    /// Maps a checked range. Return: as try_map.
    [[gnu::noinline]] static bool map_two_tables(PageTable<Tree>& page_table, Input start,
                                                 ByteCount size, PhysicalAddress physical,
                                                 Attributes attributes, MapOptions options) {
        return page_table.with_root([=](auto root) {
            return detail::Map<Tree>::try_two_tables(
                EntryWriter<Tree>(), root,
                request_of(start.value(), size.value(), physical.value(), attributes, options));
        });
    }

    /// Unmaps a checked range. Return: as try_unmap.
    [[gnu::noinline]] static LeafCount unmap_two_tables(PageTable<Tree>& page_table, Input start,
                                                        ByteCount size) {
        return page_table.with_root([=](auto root) {
            return detail::Unmap<Tree>::try_two_tables(EntryWriter<Tree>(), root, start.value(),
                                                       start.value() + (size.value() - 1));
        });
    }

    [[gnu::noinline]] Result<void> map_in_two_passes(Input start, ByteCount size,
                                                     PhysicalAddress physical,
                                                     Attributes attributes, MapOptions options) {
        const std::uint64_t first = start.value();
        return page_table_.with_root([&](auto root) -> Result<void> {
            constexpr unsigned levels = decltype(root)::level + 1;
            if (!map_is_good(first, size.value(), physical.value(), attributes, levels))
                return map_error(first, size.value(), physical.value(), attributes, levels);
            const detail::MapRequest request =
                request_of(first, size.value(), physical.value(), attributes, options);
            return detail::Map<Tree>(writer_, pending_, page_table_.memory(), request).run(root);
        });
    }

    [[gnu::noinline]] Result<Unmapped> unmap_in_two_passes(Input first, ByteCount size,
                                                           UnmapOptions options) {
        const std::uint64_t start = first.value();
        const std::uint64_t last = start + (size.value() - 1);
        return page_table_.with_root([&](auto root) -> Result<Unmapped> {
            constexpr unsigned levels = decltype(root)::level + 1;
            if (!range_is_good(start, start, size.value(), levels))
                return range_error(start, size.value(), levels);
            return detail::Unmap<Tree>(writer_, pending_, page_table_.memory(), options)
                .run(root, start, last);
        });
    }

    /// Checks the range, then calls `operate(root, last)`.
    template <class T, class Operate>
    Result<T> in_range(Input start, ByteCount size, Operate&& operate) {
        return page_table_.with_root([&](auto root) -> Result<T> {
            constexpr unsigned levels = decltype(root)::level + 1;
            if (!range_is_good(start.value(), start.value(), size.value(), levels))
                return range_error(start.value(), size.value(), levels);
            return operate(root, start.value() + (size.value() - 1));
        });
    }

    template <unsigned L>
    Result<void> grow_above(Table<Tree, L>, Root old) {
        if constexpr (L + 1 < F::most_levels) {
            auto& memory = page_table_.memory();
            const Result<PhysicalAddress> top = memory.allocate(table_bytes_lg2<F>(L + 1));
            if (!top)
                return std::unexpected(top.error());
            writer_.store(writer_.template unlinked<L + 1>(memory, *top), 0,
                          F::template table_word<L + 1>(old.table.value()));
            if (page_table_.replace_root(old, {*top, L + 2}))
                return {};
            memory.release(*top, table_bytes_lg2<F>(L + 1));
            return fail(ErrorCode::busy, "another edit has grown the tree", {"levels", old.levels});
        } else {
            MOAT_CHECK(false, "a tree of the most levels does not grow");
        }
    }

    PageTable<Tree>& page_table_;
    EntryWriter<Tree> writer_;
    PendingInvalidation<Tree> pending_;
};

} // namespace moat
