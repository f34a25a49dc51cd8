// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shipped page-table engine under the explorer, as a scenario. Nothing here is a model: this
// instantiates the headers of include/moat/page_table with ExploredSync. A broken variant changes
// one member of ExploredSync, the format's capabilities, or a line of a header (mutants/).
#include "lab/scenarios/mutants/mutants.hpp"
#include "lab/scenarios/page_table_program.hpp"

namespace moat::scenarios {

namespace page_table {

namespace {

/// A removed table is freed without a grace period.
struct FreeAtOnce : ExploredSync {
    static void defer(RcuHead* head, void (*call)(RcuHead*)) { call(head); }
};

/// A walk opens no section, so that no grace period waits for it.
struct WalkUnprotected : ExploredSync {
    struct ReadSection {
        ReadSection() {} // as in RealSync: a variable of this type is not unused
    };
};

/// An entry is compared, then stored: the re-check and the store are not one step.
struct LinkUnchecked : ExploredSync {
    template <class T>
    struct AtomicRef : explored::Ref<T> {
        using explored::Ref<T>::Ref;

        bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                                     std::memory_order failure) {
            const T found = this->load(failure);
            if (found != expected) {
                expected = found;
                return false;
            }
            this->store(desired, success);
            return true;
        }
    };
};

/// A grace period ends while walkers are inside.
struct WaitSkipped : ExploredSync {
    static void synchronize() {}
};

[[nodiscard]] explore::Program program(const Configuration& text) {
    const std::string& variant = text.at("variant");
    if (variant == "free-at-once")
        return program_with<FreeAtOnce>(text);
    if (variant == "walk-unprotected")
        return program_with<WalkUnprotected>(text);
    if (variant == "link-unchecked")
        return program_with<LinkUnchecked>(text);
    if (variant == "wait-skipped")
        return program_with<WaitSkipped>(text);
    if (variant == "levels-by-break")
        return program_with<ExploredSync, BreakingVtd>(text);
    if (variant == "awaited-break")
        return program_with<ExploredSync, AwaitedBreakVtd>(text);
    return variant == "shipped" ? program_with<ExploredSync>(text) : mutant_program(text);
}

} // namespace

} // namespace page_table

Scenario page_table_scenario() {
    return {
        .name = "page-table",
        .summary = "the shipped page-table engine: map, unmap, split, fold and walk",
        .parameters =
            {{.name = "mappers", .preset = "1", .help = "threads that map a page", .most = 4},
             {.name = "unmappers", .preset = "1", .help = "threads that unmap a page", .most = 4},
             {.name = "walkers", .preset = "1", .help = "threads that translate", .most = 4},
             {.name = "freers",
              .preset = "0",
              .help = "threads that unmap a whole table while a walker is in it",
              .most = 1},
             {.name = "splitters",
              .preset = "0",
              .help = "threads that unmap a page of a large leaf",
              .most = 2},
             {.name = "folders",
              .preset = "0",
              .help = "threads that fold a table into a leaf; needs 0 splitters",
              .most = 1},
             {.name = "neighbours",
              .preset = "0",
              .help = "threads that unmap the two pages before a freer's table; needs a freer",
              .most = 1},
             {.name = "waits",
              .preset = "0",
              .help = "1: the invalidations of freers and folders wait for walkers themselves",
              .most = 1},
             {.name = "variant",
              .preset = "shipped",
              .help = "the shipped engine (awaited-break: for a format that needs breaks), or a "
                      "mutant that breaks one rule",
              .values = {"shipped", "awaited-break", "free-at-once", "walk-unprotected",
                         "link-unchecked", "never-invalidated", "free-before-invalidation",
                         "unwaited", "wait-skipped", "looks-beyond", "read-after-free",
                         "split-unchecked", "levels-by-break"}}},
        .program = &page_table::program,
        .scope = [](const Configuration& text) {
            return "page-table, VT-d second stage of 3 levels: " +
                   counted(number(text, "mappers"), "mapper") + ", " +
                   counted(number(text, "unmappers"), "unmapper") + ", " +
                   counted(number(text, "walkers"), "walker") + ", a page each, " +
                   counted(number(text, "freers"), "table freer") + ", " +
                   counted(number(text, "splitters"), "splitter") + ", " +
                   counted(number(text, "folders"), "folder") +
                   (number(text, "neighbours") != 0 ? ", a neighbour of its table" : "") +
                   (number(text, "waits") != 0 ? ", invalidations that wait" : "") + ", variant " +
                   text.at("variant");
        }};
}

} // namespace moat::scenarios
