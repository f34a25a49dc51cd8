// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/engine/sheet_reach.hpp"

#include <algorithm>

namespace moat::audit {

std::vector<ByteCount> sheet_lengths(const Operation& operation) {
    constexpr ByteCount most(3 * Arena::page);
    const ByteCount least = std::max({operation.shortest, operation.granule, ByteCount(1)});
    std::vector<ByteCount> lengths;
    for (const ByteCount each : {least, std::min(operation.longest, most), ByteCount(Arena::page)})
        if (each <= most && each != ByteCount(0) && operation.has_length(each) &&
            std::ranges::find(lengths, each) == lengths.end())
            lengths.push_back(each);
    std::ranges::sort(lengths);
    return lengths;
}

Result<void> Reaches::measure() {
    MOAT_TRY(write_reaches());
    MOAT_TRY(read_reaches(Fit::left));
    return read_reaches(Fit::right);
}

Result<void> Reaches::write_reaches() {
    return each_run({}, [&](const Key& key, const Spot& spot) {
        Reach& reach = reaches_[key];
        const Written now = SheetBench::written_around(spot);
        Written& most = reach.written;
        most.before = std::max(most.before, now.before);
        most.after = std::max(most.after, now.after);
        most.rest_of_page = std::max(most.rest_of_page, now.rest_of_page);
        for (const Blocked& each : bench_.blocked_beside(spot))
            reach.wrote_beyond = reach.wrote_beyond || each.wrote;
    });
}

Result<void> Reaches::read_reaches(Fit::Kind side) {
    MOAT_TRY(each_run({side}, [&](const Key& key, const Spot& spot) {
        ReadReach& reach = of(key, side);
        reach.unseen = std::max(reach.unseen, distance(spot, side));
        for (const Blocked& each : bench_.blocked_beside(spot)) {
            if (each.wrote || each.is_left != (side == Fit::left))
                continue;
            reach.is_blocked = true;
            reach.is_exact = reach.is_exact && each.extent.has_value();
            reach.value = std::max(reach.value, each.extent.value_or(0));
        }
    }));
    for (auto& [key, reach] : reaches_) {
        ReadReach& reads = of(key, side);
        if (!reads.is_blocked)
            reads.resolution = reads.unseen;
        else if (!reads.is_exact)
            MOAT_TRY(search(key, side, reads));
    }
    return {};
}

Result<Reaches::Probe> Reaches::probe_at(const Key& key, Fit fit) {
    Probe probe;
    MOAT_TRY(each_run(
        fit,
        [&](const Key& other, const Spot& spot) {
            if (other != key)
                return;
            probe.distance = std::max(probe.distance, distance(spot, fit.kind));
            for (const Blocked& each : bench_.blocked_beside(spot))
                probe.is_blocked =
                    probe.is_blocked || (!each.wrote && each.is_left == (fit.kind == Fit::left));
        },
        key.first));
    return probe;
}

Result<void> Reaches::search(const Key& key, Fit::Kind side, ReadReach& reads) {
    std::uint64_t reached = reads.unseen;
    std::uint64_t quiet = 0;
    for (std::uint64_t next = 64; quiet == 0 && next <= sheet_reach; next *= 2) {
        MOAT_LET(const Probe probe, probe_at(key, {side, next}));
        (probe.is_blocked ? reached : quiet) = probe.distance;
    }
    while (quiet > reached + 1) {
        MOAT_LET(const Probe probe, probe_at(key, {side, (reached + quiet) / 2}));
        if (probe.distance <= reached || probe.distance >= quiet)
            break; // the buffer's alignment
        (probe.is_blocked ? reached : quiet) = probe.distance;
    }
    reads.value = reached + 1;
    reads.resolution = quiet == 0 ? ~std::uint64_t{0} : quiet - reached - 1;
    return {};
}

} // namespace moat::audit
