// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every broken variant is caught, and the right one of each is proved, as the table lists by check
// and memory model. `--gtest_filter=Table/Mutants*` prints it with the number of executions.
#include "lab/explore/explorer.hpp"
#include "lab/scenarios/scenario.hpp"
#include "searched.hpp"

#include <gtest/gtest.h>
#include <iostream>
#include <string>

namespace moat::explore::testing {
namespace {

/// A deep mutant needs more than `sanitized_executions`.
enum class Depth : std::uint8_t { shallow, deep };

struct Mutant {
    const char* scenario;
    const char* configuration;
    MemoryModelKind model;
    ViolationKind kind;
    const char* found_by; ///< the start of its report
    std::uint32_t most_steps = 600;
    Depth depth = Depth::shallow;
};

void PrintTo(const Mutant& mutant, std::ostream* out) {
    *out << mutant.scenario << " " << mutant.configuration;
}

using enum MemoryModelKind;
using enum ViolationKind;

/// Unmapping everything below a table reads each of its 512 entries.
constexpr std::uint32_t whole_table = 4000;

constexpr Mutant mutants[] = {
    {"pud-slot", "variant=old", sc, check, "the walker descends"},
    {"pud-slot", "variant=two-load zappers=1", sc, check, "the walker descends"},
    {"pud-slot", "variant=two-load-reversed", sc, check, "the walker descends"},
    {"publish-table", "variant=link-relaxed", c11, data_race, "plain variable"},
    {"publish-table", "variant=walk-relaxed", c11, data_race, "plain variable"},
    {"publish-table", "variant=link-unchecked", sc, check, "a linked table is overwritten"},
    {"publish-table", "variant=free-at-once", sc, use_after_free, ""},
    {"publish-table", "variant=walk-unprotected", sc, use_after_free, ""},
    {"publish-table", "variant=free-before-unlink", sc, use_after_free, ""},
    {"unmap-page", "variant=free-before-invalidation", sc, use_after_free, "store in freed"},
    {"unmap-page", "variant=invalidation-before-clear", sc, use_after_free, "store in freed"},
    {"unmap-page", "variant=iova-reused-before-invalidation", sc, check, "the device writes"},
    {"walk-retry", "variant=sticky-action", sc, check, "an entry is visited twice"},
    {"walk-retry", "variant=unbounded-retry", sc, livelock, "all who can move"},
    {"remote-free", "variant=push-lost", sc, check, "a freed range is lost"},
    {"remote-free", "variant=drain-lost", sc, check, "a freed range is lost"},
    {"remote-free", "variant=push-relaxed", c11, data_race, "plain variable range"},
    {"remote-free", "variant=exit-undrained", sc, check, "a freed range is lost"},
    {"readers", "variant=enter-by-store slots=listed", tso, data_race, ""},
    {"readers", "variant=look-by-load slots=listed", c11, data_race, ""},
    {"readers", "variant=leave-relaxed", c11, data_race, ""},
    {"readers", "variant=met-first", c11, data_race, ""},
    {"readers", "variant=reader-unmet", tso, data_race, ""},
    {"readers", "variant=reclaimer-unmet", tso, data_race, ""},
    {"readers", "variant=listed-unlocked waits=1 slots=listed", sc, livelock, "all who can move"},
    {"readers", "variant=removed-open waits=1 slots=listed", sc, data_race, ""},
    // The shipped engine, over a Sync that breaks one rule.
    {"page-table", "variant=free-at-once mappers=0 unmappers=0 walkers=0 freers=1", sc,
     use_after_free, "", whole_table},
    {"page-table", "variant=walk-unprotected mappers=0 unmappers=0 walkers=0 freers=1", sc,
     use_after_free, "", whole_table},
    {"page-table", "variant=link-unchecked mappers=2 unmappers=0 walkers=0", sc, check, ""},
    {"page-table", "variant=never-invalidated mappers=0 unmappers=0 walkers=0 freers=1", sc, check,
     "a linked table is freed before", whole_table},
    {"page-table", "variant=free-before-invalidation mappers=0 unmappers=0 walkers=0 freers=1", sc,
     check, "a linked table is freed before", whole_table},
    {"page-table", "variant=unwaited mappers=0 unmappers=0 walkers=0 freers=1", sc, use_after_free,
     "", whole_table},
    {"page-table", "variant=wait-skipped mappers=0 unmappers=0 walkers=0 freers=1 waits=1", sc,
     use_after_free, "", whole_table},
    {"page-table",
     "variant=looks-beyond mappers=0 unmappers=0 walkers=0 freers=1 neighbours=1 waits=1", sc,
     use_after_free, "", whole_table},
    {"page-table", "variant=read-after-free mappers=0 unmappers=0 walkers=0 folders=1 waits=1", sc,
     use_after_free, "", whole_table},
    {"page-table", "variant=split-unchecked mappers=0 unmappers=0 walkers=0 splitters=2", sc, check,
     "an unmapped part", whole_table},
    {"page-table", "variant=levels-by-break mappers=0 unmappers=0 walkers=0 splitters=1", sc, check,
     "a page vanishes", whole_table},
    {"page-table", "variant=levels-by-break mappers=0 unmappers=0 walkers=0 folders=1", sc, check,
     "a page vanishes", whole_table},
    {"iova-flush", "variant=unlocked flushers=2", sc, data_race, "plain variable"},
    {"iova-flush", "variant=queued-unordered", c11, data_race, "plain variable"},
    {"iova-flush", "variant=taken-late ranges=2", sc, check, "a range is released before"},
    {"iova-flush", "variant=half-a-ring ranges=4", sc, check, "a range is released twice"},
    {"iova-flush", "variant=room-uncounted ranges=4", sc, check, "a flush takes more"},
    {"iova-flush", "variant=abandoned-unordered queuers=2", c11, data_race, "plain variable"},
    {"iova-flush", "variant=one-look queuers=2 flushers=0 alarms=1", tso, check,
     "a queued range is"},
    {"iova", "case=remote variant=unlocked", sc, data_race, "plain variable", whole_table},
    {"iova", "case=exit variant=no-exit-hook", sc, check, "some of the space is lost", whole_table},
    {"iova", "case=drain variant=nobody-visited", sc, check, "a magazine stays open", whole_table},
    {"iova", "case=drain range=large variant=special-unasked", sc, check, "a magazine stays open",
     whole_table},
    {"iova", "case=exit range=large variant=special-lost", sc, check, "some of the space is lost",
     whole_table},
    {"iova", "case=mixed range=aligned variant=wish-unasked", sc, check, "a range does not lie",
     whole_table},
    {"dma-registry", "variant=unlocked", sc, check, "a search misses", 600, Depth::deep},
    {"dma-registry", "variant=unannounced", sc, check, "a search misses"},
    {"dma-registry", "variant=forget-by-store leaves=two", sc, check, "a search misses", 600,
     Depth::deep},
    {"dma-registry", "variant=forget-all", sc, check, "a search misses"},
    {"dma-past", "variant=stamp-ignored", sc, check, "past mappings"},
    {"dma-past", "variant=round-kept", sc, check, "past mappings"},
    {"dma-past", "variant=lost-kept turns=2 capacity=1 queries=0", sc, check, "past mappings"},
    {"dma-past", "variant=notes-uncounted", sc, check, "past mapping"},
    {"iommu", "variant=unwaited", sc, data_race, "plain variable"},
    {"iommu", "variant=unforgotten", sc, data_race, "plain variable"},
    {"iommu", "driver=unmap-table variant=large-unseen", sc, data_race, "plain variable",
     whole_table},
    {"iommu", "variant=waited-first", sc, data_race, "plain variable"},
    {"iommu", "driver=unmap-table variant=wait-skipped", sc, data_race, "plain variable",
     whole_table},
    {"iommu", "driver=defer variant=unwaited", sc, data_race, "plain variable"},
    {"iommu", "driver=defer variant=unforgotten", sc, data_race, "plain variable"},
    {"iommu", "driver=defer variant=waited-first", sc, data_race, "plain variable"},
    {"iommu", "driver=poison variant=unwaited", sc, data_race, "plain variable"},
    {"iommu", "driver=lend variant=unordered", c11, data_race, "plain variable"},
    {"vtd-queue", "variant=unlocked", sc, check, "a call returns before"},
    {"vtd-queue", "variant=registers-unordered", c11, data_race, "plain variable"},
    {"vtd-queue", "variant=tail-first", sc, data_race, "plain variable"},
    {"vtd-queue", "variant=status-any", sc, check, "a call returns before"},
    {"vtd-queue", "variant=status-relaxed", c11, data_race, "plain variable"},
    {"vtd-queue", "variant=batch-too-long batch=3", sc, livelock, "all who can move"},
    {"vtd-queue", "variant=error-unseen failure=reported", sc, livelock, "all who can move"},
    {"amd-commands", "variant=unlocked", sc, check, "a call returns before"},
    {"amd-commands", "variant=registers-unordered", c11, data_race, "plain variable"},
    {"amd-commands", "variant=tail-first", sc, data_race, "plain variable"},
    {"amd-commands", "variant=status-any", sc, check, "a call returns before"},
    {"amd-commands", "variant=status-relaxed", c11, data_race, "plain variable"},
    {"amd-commands", "variant=batch-too-long batch=3", sc, livelock, "all who can move"},
    {"amd-commands", "variant=stop-unseen failure=reported", sc, livelock, "all who can move"},
    {"smmu-commands", "variant=unlocked", sc, check, "a call returns before"},
    {"smmu-commands", "variant=registers-unordered", c11, data_race, "plain variable"},
    {"smmu-commands", "variant=producer-first", sc, data_race, "plain variable"},
    {"smmu-commands", "variant=no-sync", sc, check, "a call returns before"},
    {"smmu-commands", "variant=sync-unawaited", sc, check, "a call returns before"},
    {"smmu-commands", "variant=wrap-kept", sc, check, "a call returns before"},
    {"smmu-commands", "variant=batch-too-long batch=2", sc, check, "the driver sends more"},
    {"smmu-commands", "variant=error-unseen failure=reported", sc, livelock, "all who can move"},
    {"smmu-events", "variant=unlocked", sc, data_race, "plain variable"},
    {"smmu-events", "variant=registers-unordered", c11, data_race, "plain variable"},
    {"smmu-events", "variant=freed-first", sc, data_race, "plain variable"},
    {"smmu-events", "variant=wrap-ignored", sc, check, "an event is lost"},
    {"smmu-events", "variant=overflow-unseen", sc, check, "an overflow is not reported"},
    {"smmu-events", "variant=overflow-unacknowledged", sc, check, "an overflow is not reported"},
    {"virtio-requests", "variant=unlocked", sc, check, "a call returns before"},
    {"virtio-requests", "variant=offered-first", sc, check, "a call fails"},
    {"virtio-requests", "variant=offer-relaxed", c11, check, "a call fails"},
    {"virtio-requests", "variant=notified-first", sc, deadlock, "no thread can move"},
    {"virtio-requests", "variant=used-kept", sc, check, "a call fails"},
    {"virtio-requests", "variant=used-relaxed", c11, data_race, "plain variable"},
};

[[nodiscard]] Program program_of(const char* scenario, const char* configuration) {
    const scenarios::Scenario* const found = scenarios::find(scenario);
    MOAT_CHECK(found != nullptr, "the table names a scenario");
    const auto complete = scenarios::complete(*found, scenarios::parse(configuration));
    MOAT_CHECK(complete.has_value(), "the table names its parameters");
    return found->program(*complete);
}

class Mutants : public ::testing::TestWithParam<Mutant> {};

TEST_P(Mutants, is_caught) {
    const Mutant& mutant = GetParam();
    if (sanitized && mutant.depth == Depth::deep)
        GTEST_SKIP() << "SKIPPED: found after so many executions that a sanitizer takes too long";
    ExploreOptions options;
    options.machine.memory_model = mutant.model;
    options.machine.most_steps = mutant.most_steps;
    options.most_executions = mutant.depth == Depth::deep ? 100000 : sanitized_executions;
    options.minimises = false;
    const Report report =
        explore::explore(program_of(mutant.scenario, mutant.configuration), options);
    ASSERT_TRUE(report.found) << report.tally.executions << " executions and nothing found";
    EXPECT_EQ(name(report.found->violation.kind), name(mutant.kind));
    EXPECT_TRUE(report.found->violation.text.starts_with(mutant.found_by))
        << report.found->violation.text;
    std::cout << mutant.scenario << " " << mutant.configuration << " -> "
              << name(report.found->violation.kind) << " under " << name(mutant.model) << " -> "
              << report.tally.executions + report.tally.blocked + 1 << " executions\n";
}

std::string name_of(const ::testing::TestParamInfo<Mutant>& tested) {
    std::string text = tested.param.scenario;
    text.append("_").append(tested.param.configuration);
    for (char& each : text)
        if (std::isalnum(static_cast<unsigned char>(each)) == 0)
            each = '_';
    return text;
}

INSTANTIATE_TEST_SUITE_P(Table, Mutants, ::testing::ValuesIn(mutants), name_of);

class Right : public ::testing::TestWithParam<std::tuple<const char*, MemoryModelKind>> {};

TEST_P(Right, is_proved) {
    const auto& [scenario, model] = GetParam();
    ExploreOptions options;
    options.machine.memory_model = model;
    options.machine.most_steps = 600;
    options.most_executions = most_searched;
    const Report report = explore::explore(program_of(scenario, ""), options);
    expect_proved(report);
}

INSTANTIATE_TEST_SUITE_P(Table, Right,
                         ::testing::Combine(::testing::Values("pud-slot", "publish-table",
                                                              "unmap-page", "remote-free"),
                                            ::testing::Values(sc, tso, c11)),
                         [](const auto& tested) {
                             std::string text = std::get<0>(tested.param);
                             text[text.find('-')] = '_';
                             return text.append("_").append(name(std::get<1>(tested.param)));
                         });

} // namespace
} // namespace moat::explore::testing
