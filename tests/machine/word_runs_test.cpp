// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Records of single words become records of transfers.
#include "machine/qemu/word_runs.hpp"

#include <gtest/gtest.h>
#include <vector>

namespace moat::tests {
namespace {

using fault::Access;
using fault::Precision;
using fault::Record;

Record word(std::uint64_t at, Access access = Access::write) {
    return {.source = fault::Source::requester(0x20),
            .access = access,
            .precision = Precision::start,
            .where = IovaRange(Iova(at), ByteCount(1))};
}

std::vector<Record> joined(const std::vector<Record>& words) {
    std::vector<Record> all;
    auto keep = [&](const Record& each) { all.push_back(each); };
    machine::qemu::WordRuns runs(keep);
    for (const Record& each : words)
        runs.add(each);
    runs.finish();
    return all;
}

void expect_runs(const std::vector<Record>& words, const std::vector<IovaRange>& expected) {
    const auto all = joined(words);
    ASSERT_EQ(all.size(), expected.size());
    for (std::size_t i = 0; i != all.size(); ++i) {
        EXPECT_EQ(all[i].where, expected[i]) << i;
        EXPECT_EQ(all[i].precision, Precision::exact);
    }
}

IovaRange range(std::uint64_t start, std::uint64_t bytes) {
    return {Iova(start), ByteCount(bytes)};
}

TEST(WordRuns, words_of_one_transfer_are_one_record) {
    expect_runs({}, {});
    expect_runs({word(0x5000)}, {range(0x5000, 4)});
    expect_runs({word(0x5000), word(0x5004), word(0x5008)}, {range(0x5000, 12)});
    expect_runs({word(0x5001), word(0x5002), word(0x5004)}, {range(0x5001, 7)});
    expect_runs({word(0x5000), word(0x5004), word(0x5006)}, {range(0x5000, 8)});
    expect_runs({word(0x5000), word(0x5000), word(0x5004)}, {range(0x5000, 8)});
}

TEST(WordRuns, gaps_and_changes_begin_another) {
    expect_runs({word(0x5000), word(0x5008)}, {range(0x5000, 4), range(0x5008, 4)});
    expect_runs({word(0x5000), word(0x5004, Access::read)}, {range(0x5000, 4), range(0x5004, 4)});
    expect_runs({word(0x5004), word(0x5000)}, {range(0x5004, 4), range(0x5000, 4)});
    Record other = word(0x5004);
    other.source = fault::Source::requester(0x28);
    expect_runs({word(0x5000), other}, {range(0x5000, 4), range(0x5004, 4)});
    expect_runs({word(~std::uint64_t{3}), word(0)}, {range(~std::uint64_t{3}, 4), range(0, 4)});
}

TEST(WordRuns, records_without_an_address_keep_their_place) {
    const Record none = {.reason = fault::Reason::not_attached};
    const auto all = joined({word(0x5000), none, word(0x5004)});
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(all[1], none);
}

} // namespace
} // namespace moat::tests
