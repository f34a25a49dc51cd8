// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Diagnosis beside many mappings, counted in search steps; and what a note in the history costs.
// Goals and what they mean: docs/design/fault.md.
#include "moat/fault/diagnose.hpp"
#include "moat/fault/history.hpp"

#include "harness.hpp"

#include <algorithm>
#include <random>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;

constexpr std::uint64_t live_count = 100'000;
constexpr std::uint64_t past_count = 1'000'000;
/// Living and past mappings lie in turn within the same addresses.
constexpr std::uint64_t span = live_count << 20;

std::vector<fault::Mapping> living() {
    std::vector<fault::Mapping> mappings;
    for (std::uint64_t index = 0; index != live_count; ++index)
        mappings.push_back({.range = {Iova(index << 20), ByteCount(0x1000)}});
    return mappings;
}

/// A page somewhere that is no living mapping's.
IovaRange past_page(std::mt19937_64& random) {
    const std::uint64_t page = random() % (span >> 12);
    return {Iova((page | 1) << 12), ByteCount(0x1000)};
}

fault::Record record_at(std::uint64_t address) {
    return {.access = fault::Access::write,
            .precision = fault::Precision::page,
            .reason = fault::Reason::not_present,
            .where = {Iova(address & ~0xfffULL), ByteCount(0x1000)}};
}

void diagnosis(Suite& suite) {
    const std::string steps = "diagnose: most search steps, 100 K living and 1 M past mappings";
    const std::string time = "diagnose: the same";
    if (suite.only_counts() || (!suite.wants(steps) && !suite.wants(time)))
        return;
    std::mt19937_64 random(1);
    const std::vector<fault::Mapping> live = living();
    fault::History history(past_count);
    for (std::uint64_t index = 0; index != past_count; ++index)
        history.note({.range = past_page(random)}, {});
    history.catch_up();
    const fault::SortedMappings sorted(live);
    std::uint64_t most = 0;
    for (int question = 0; question != 200'000; ++question)
        most = std::max(most,
                        fault::diagnose(sorted, history, record_at(random() % span)).steps.count);
    suite.report({.name = steps, .value = static_cast<double>(most), .unit = "steps", .goal = 64});
    suite.compare(
        {.name = time, .subject = {.run = [&](std::uint64_t count) {
                           for (; count != 0; --count)
                               keep(fault::diagnose(sorted, history, record_at(random() % span)));
                       }}});
}

void noting(Suite& suite) {
    std::mt19937_64 random(2);
    fault::History history(1U << 16);
    std::vector<fault::Mapping> mappings(1U << 12);
    for (fault::Mapping& mapping : mappings)
        mapping.range = past_page(random);
    suite.compare({.name = "history: note an unmap",
                   .subject = {.run = [&](std::uint64_t count) {
                       for (; count != 0; --count)
                           history.note(mappings[count % mappings.size()], {});
                   }}});
    suite.compare({.name = "history: note and bring the index up to date",
                   .subject = {.run = [&](std::uint64_t count) {
                       for (; count != 0; --count)
                           history.note(mappings[count % mappings.size()], {});
                       history.catch_up();
                   }}});
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("fault", argc, argv);
    diagnosis(suite);
    noting(suite);
    return suite.finish();
}
