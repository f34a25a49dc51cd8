// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Walker: walks VMAs and tables, and calls a visitor. A walk whose visitor requests no change
// changes nothing, takes no lock and allocates nothing. readers/ builds reports on it.
//
// A visitor has any of these, and no other:
//
//     VmaTest test(const Vma&)              before a VMA: walk it, skip it, end the walk
//     void before(const Vma&), after(...)   around the walked part of a VMA
//     Action table(VirtualAddress, Entry<Types, L>)    a table in an entry of level L; `subtree`
//                                           (descend) or `proceed` (skip it); there is no such L
//                                           for levels that a format lacks
//     Action leaf(VirtualRange part, Leaf<Types, L>)   the walked part of the leaf
//     bool passes_over(Table<Types, 0>)     whether the walk may skip a whole table of pages
//     void kept(VirtualRange part, Leaf<Types, L>)     a leaf for which leaf() returned `subtree`,
//                                           but which cannot be split
//     void hole(VirtualRange, unsigned depth)   no leaf: in an entry of level `depth`, or of depth
//                                           `no_vma` outside of VMAs
//     std::optional<Access> install(VirtualRange hole)   an installing walk: fault in a leaf for
//                                           this access and visit it; or leave the hole
//     void retried(VirtualRange)            before the walk reads an entry again after leaf()
//
// The walk visits every address of the range once: in one leaf for which leaf() returned
// `proceed` or that was kept, in one hole, or in a part that test(), table() or passes_over()
// skipped. It sees concurrent changes as either before or after.
//
// Actions of leaf(). `proceed`: continue. `again`: read this entry again. `subtree`: the visitor
// wants smaller leaves; the walk splits the leaf as split_leaf() does, and reads the entry again,
// by one snapshot, from the root. A leaf that cannot be split counts as visited.
// The walk repeats both at most `retries` times; then it takes the block's lock, and the entry
// that it finds under it is final.
#pragma once

#include "moat/mm/address_space.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

namespace moat::mm {

enum class Action : std::uint8_t { subtree, proceed, again, stop };

enum class VmaTest : std::uint8_t { walk, skip, stop };

/// The depth of a hole where no VMA is.
inline constexpr unsigned no_vma = ~0U;

struct WalkOptions {
    unsigned retries = 3;
    DeviceLeaf device = DeviceLeaf::keep; ///< when leaf() returns `subtree`
};

/// `Space` is const for a walk that only reads: `subtree` then keeps the leaf.
template <class Space, class Visitor>
class Walker {
  public:
    using Plain = std::remove_const_t<Space>;
    using F = typename Plain::Format;
    using Sync = typename Plain::Sync;
    using Types = typename Plain::Types;
    using Core = typename Plain::Core;
    using Attached = typename Plain::Attached;
    static constexpr bool changes = !std::is_const_v<Space>;

    Walker(Space& space, Visitor& visitor, const WalkOptions& options = {})
        : space_(space), visitor_(visitor), options_(options) {}

    /// Walks the VMAs of the range, and the holes between them. Errors: of the range, and no_memory
    /// (to split or install). An error leaves no lock held and no address visited twice.
    Result<WalkEnd> run(VirtualRange range) {
        MOAT_TRY(Core::check(range, 0));
        for (VirtualAddress at = range.start();;) {
            const typename Sync::ReadSection section;
            const Attached* const vma = space_.core().vmas.view().at_or_above(at);
            const bool ends = vma == nullptr || vma->range.start() > range.last();
            if (ends || vma->range.start() > at) {
                const VirtualAddress last =
                    ends ? range.last() : VirtualAddress(vma->range.start().value() - 1);
                show_hole(VirtualRange::inclusive(at, last), no_vma);
                if (ends)
                    return WalkEnd::complete;
                at = vma->range.start();
            }
            const VirtualAddress last = std::min(vma->range.last(), range.last());
            if (!walk_vma(*vma, VirtualRange::inclusive(at, last)))
                return error_ ? Result<WalkEnd>(std::unexpected(*error_)) : WalkEnd::stopped;
            if (last == range.last())
                return WalkEnd::complete;
            at = VirtualAddress(last.value() + 1);
        }
    }

    /// Walks the tables of the range, ignoring VMAs. Errors: as run().
    Result<WalkEnd> run_without_vmas(VirtualRange range) {
        MOAT_TRY(Core::check(range, 0));
        visit_tables(range);
        if (error_)
            return std::unexpected(*error_);
        return stopped_ ? WalkEnd::stopped : WalkEnd::complete;
    }

    /// Visits the entries of the tables for `part`, from the root.
    void visit_tables(VirtualRange part) {
        const auto outer = std::exchange(spans_, {});
        const Result<WalkEnd> walked =
            space_.core().tables.reader().walk(part.start(), part.size(), Step{*this, part});
        MOAT_CHECK(walked.has_value(), "a range that was checked can be walked");
        spans_ = outer;
    }

  private:
    /// The visitor of the engine's walk.
    struct Step {
        Walker& walker;
        VirtualRange part;

        template <unsigned L>
        [[gnu::always_inline]] WalkControl leaf(VirtualAddress start, Leaf<Types, L> found) {
            return walker.on_leaf(part, start, found);
        }

        template <unsigned L>
        [[gnu::always_inline]] WalkControl table(VirtualAddress start, Entry<Types, L> entry) {
            return walker.on_table(start, entry);
        }

        [[gnu::always_inline]] WalkControl hole(VirtualAddress start, ByteCount size) {
            return walker.on_hole({start, size});
        }
    };

    static constexpr bool installs =
        changes && requires(Visitor& visitor, VirtualRange range) { visitor.install(range); };

    [[nodiscard]] bool walk_vma(const Attached& vma, VirtualRange part) {
        if constexpr (requires { visitor_.test(vma); }) {
            const VmaTest answer = visitor_.test(vma);
            if (answer != VmaTest::walk)
                return answer == VmaTest::skip;
        }
        if constexpr (requires { visitor_.before(vma); })
            visitor_.before(vma);
        visit_tables(part);
        if (stopped_)
            return false;
        if constexpr (requires { visitor_.after(vma); })
            visitor_.after(vma);
        return true;
    }

    template <unsigned L>
    [[gnu::always_inline]] WalkControl on_leaf(VirtualRange part, VirtualAddress start,
                                               Leaf<Types, L> found) {
        const std::uint64_t leaf_last = start.value() + (found.size().value() - 1);
        const bool whole = start >= part.start() && leaf_last <= part.last().value();
        const VirtualRange shown =
            whole ? VirtualRange(start, found.size()) : cut(part, start, leaf_last);
        const Action action = show_leaf(shown, found);
        if (action == Action::proceed) [[likely]]
            return WalkControl::next;
        return not_done(action, shown, start, found);
    }

    /// The part of a leaf that lies in the walked range.
    [[gnu::noinline]] static VirtualRange cut(VirtualRange part, VirtualAddress start,
                                              std::uint64_t leaf_last) {
        return part.intersection(VirtualRange::inclusive(start, VirtualAddress(leaf_last)));
    }

    template <unsigned L>
    [[gnu::always_inline]] Action show_leaf(VirtualRange part, Leaf<Types, L> found) {
        if constexpr (requires { visitor_.leaf(part, found); }) {
            if constexpr (std::is_void_v<decltype(visitor_.leaf(part, found))>)
                visitor_.leaf(part, found);
            else
                return visitor_.leaf(part, found);
        }
        return Action::proceed;
    }

    template <unsigned L>
    [[gnu::noinline]] WalkControl not_done(Action action, VirtualRange part, VirtualAddress start,
                                           Leaf<Types, L> found) {
        if (action == Action::stop)
            return stop();
        if (action == Action::subtree) {
            const LeafChange change =
                L == 0 ? LeafChange::refused : take_apart(start, found.size_lg2());
            if (change == LeafChange::no_memory)
                return stop();
            if (change == LeafChange::refused)
                return keep(part, found);
        }
        if (is_locked_)
            return WalkControl::next;
        // look_again() is reading this entry already: its loop continues.
        if (part == again_) {
            action_ = Action::again;
            return WalkControl::stop;
        }
        return look_again(part, found.size_lg2());
    }

    template <unsigned L>
    WalkControl keep(VirtualRange part, Leaf<Types, L> found) {
        if constexpr (requires { visitor_.kept(part, found); })
            visitor_.kept(part, found);
        return WalkControl::next;
    }

    /// A walk that only reads splits nothing.
    LeafChange take_apart(VirtualAddress start, unsigned size_lg2) {
        LeafChange change = LeafChange::refused;
        if constexpr (changes) {
            if (is_locked_) {
                change = take_apart_locked(start, size_lg2);
                split_ = change == LeafChange::split || change == LeafChange::unmapped;
            } else {
                change = space_.split_leaf(start, size_lg2, options_.device);
            }
            if (change == LeafChange::no_memory)
                error_ = Error(ErrorCode::no_memory, "no memory to split a huge page",
                               {"leaf", start.value()});
        }
        return change;
    }

    LeafChange take_apart_locked(VirtualAddress start, unsigned size_lg2)
        requires changes
    {
        const Attached* const vma = space_.core().vmas.view().find(start);
        if (vma == nullptr || !vma->attached())
            return LeafChange::refused; // it is about to go
        return Zapper<Core>(space_.core()).split_locked(*vma, start, size_lg2, options_.device);
    }

    /// Reads again the part of a leaf that was split, or that the visitor wants to see again.
    WalkControl look_again(VirtualRange part, unsigned size_lg2) {
        const VirtualRange outer = std::exchange(again_, part);
        action_ = Action::again;
        for (unsigned attempt = 1; action_ == Action::again && !stopped_; ++attempt) {
            if constexpr (requires { visitor_.retried(part); })
                visitor_.retried(part);
            action_ = Action::subtree;
            if (attempt > options_.retries)
                look_locked(part, size_lg2);
            else
                visit_tables(part);
        }
        again_ = outer;
        return stopped_ ? WalkControl::stop : WalkControl::next;
    }

    /// Under the lock of the block, where no other thread changes its leaves.
    void look_locked(VirtualRange part, unsigned size_lg2) {
        if constexpr (changes) {
            auto& core = space_.core();
            const typename Core::Lock lock(core.block_lock(part.start(), size_lg2));
            // A table that replaced a leaf of 1 GiB stays, and other locks guard its entries.
            if (size_lg2 != pud_lg2 || core.look(part.start()).level >= 2) {
                visit_locked(part);
                return;
            }
        }
        again_ = {};
        visit_tables(part);
        again_ = part;
    }

    void visit_locked(VirtualRange part) {
        is_locked_ = true;
        split_ = false;
        visit_tables(part);
        if (split_ && !stopped_)
            visit_tables(part);
        is_locked_ = false;
    }

    template <unsigned L>
    [[gnu::always_inline]] WalkControl on_table(VirtualAddress start, Entry<Types, L> entry) {
        spans_[L - 1] = {start.value(), start.value() + low_bits(entry_lg2<F>(L))};
        if constexpr (L == 1 && requires(Table<Types, 0> pages) { visitor_.passes_over(pages); })
            if (entry.match([] { return false; }, [](auto) { return false; },
                            [&](auto pages) { return visitor_.passes_over(pages); }))
                return WalkControl::skip;
        if constexpr (requires { visitor_.table(start, entry); })
            switch (visitor_.table(start, entry)) {
            case Action::proceed:
                return WalkControl::skip;
            case Action::stop:
                return stop();
            case Action::subtree:
            case Action::again:
                break;
            }
        return WalkControl::next;
    }

    [[gnu::always_inline]] WalkControl on_hole(VirtualRange range) {
        if constexpr (installs) {
            return fill(range);
        } else {
            show_hole(range, depth_of(range.start()));
            return WalkControl::next;
        }
    }

    void show_hole(VirtualRange range, unsigned depth) {
        if constexpr (requires { visitor_.hole(range, depth); })
            visitor_.hole(range, depth);
    }

    [[nodiscard]] unsigned depth_of(VirtualAddress address) const {
        for (unsigned level = 0; level + 1 != F::most_levels; ++level)
            if (spans_[level].last != 0 &&
                address.value() - spans_[level].start <= spans_[level].last - spans_[level].start)
                return level;
        return F::most_levels - 1;
    }

    /// A hole of an installing walk. Visits the new leaf under its block's lock: no zap removes it
    /// between fault-in and visit. A leaf that another fault installed serves as well.
    WalkControl fill(VirtualRange hole) {
        if (is_locked_) {
            show_hole(hole, depth_of(hole.start()));
            return WalkControl::next;
        }
        for (VirtualAddress at = hole.start();;) {
            const VirtualRange rest = VirtualRange::inclusive(at, hole.last());
            const std::optional<Access> access = visitor_.install(rest);
            if (!access) {
                show_hole(rest, depth_of(at));
                return WalkControl::next;
            }
            VirtualAddress last = at;
            const auto visit = [&](const LeafView& leaf) {
                last = std::min(leaf.range().last(), hole.last());
                visit_locked(VirtualRange::inclusive(at, last));
            };
            const Result<Fault> fault = space_.with_leaf(at, *access, visit);
            if (!fault && fault.error().code() == ErrorCode::no_memory) {
                error_ = fault.error();
                return stop();
            }
            if (!fault) {
                // The VMA went, or permits no fault: that holds for the rest of the hole.
                show_hole(rest, depth_of(at));
                return WalkControl::next;
            }
            if (stopped_)
                return WalkControl::stop;
            if (last == hole.last())
                return WalkControl::next;
            at = VirtualAddress(last.value() + 1);
        }
    }

    WalkControl stop() {
        stopped_ = true;
        return WalkControl::stop;
    }

    struct Span {
        std::uint64_t start = 0;
        std::uint64_t last = 0;
    };

    Space& space_;
    Visitor& visitor_;
    const WalkOptions options_;
    /// The spans of the tables that the walk is in, by level, without the root.
    std::array<Span, F::most_levels> spans_{};
    VirtualRange again_{};
    Action action_ = Action::proceed;
    bool is_locked_ = false; ///< the walk holds the lock of the block
    bool split_ = false;     ///< it split the leaf under that lock
    bool stopped_ = false;
    std::optional<Error> error_;
};

/// A walk that reads: no split, no zap, no allocation, no lock.
template <class Space, class Visitor>
Result<WalkEnd> walk(const Space& space, VirtualRange range, Visitor&& visitor) {
    return Walker<const Space, std::remove_reference_t<Visitor>>(space, visitor).run(range);
}

/// A walk that may split and install, as its visitor requests.
template <class Space, class Visitor>
Result<WalkEnd> walk_and_change(Space& space, VirtualRange range, Visitor&& visitor,
                                const WalkOptions& options = {}) {
    return Walker<Space, std::remove_reference_t<Visitor>>(space, visitor, options).run(range);
}

} // namespace moat::mm
