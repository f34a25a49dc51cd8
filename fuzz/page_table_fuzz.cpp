// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sequences of operations on a tree of any format against a plain model: the first byte chooses the
// format, the rest the operations. A finding prints them in words.
#include "page_table/operations.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <gtest/gtest.h>
#include <iostream>

namespace {

using namespace moat::tests;

/// Numbers out of the input; zeros when it ends.
class Bytes {
  public:
    Bytes(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {}

    [[nodiscard]] bool empty() const { return data_ == end_; }

    std::uint64_t below(std::uint64_t limit) {
        std::uint64_t value = 0;
        for (std::uint64_t reach = 1; reach < limit && !empty(); reach <<= 8)
            value = value << 8 | *data_++;
        return value % limit;
    }

  private:
    const std::uint8_t* data_;
    const std::uint8_t* end_;
};

[[noreturn]] void report(const std::string& log, const std::string& difference) {
    std::cerr << log << difference << '\n';
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const std::vector<FormatUnderTest> formats = all_formats();
    constexpr unsigned most_operations = 64;
    Bytes bytes(data, size);
    const FormatUnderTest& format = formats[bytes.below(formats.size())];
    const auto engine = format.engine();
    Model model;
    std::string log = format.facts.name + '\n';
    for (unsigned step = 0; !bytes.empty() && step != most_operations; ++step) {
        const Operation operation = choose_operation(
            format.facts, [&bytes](std::uint64_t limit) { return bytes.below(limit); });
        log += operation.describe() + '\n';
        if (const auto difference = perform(operation, format.facts, *engine, model);
            !difference.empty())
            report(log, difference);
    }
    if (const auto difference = compare(*engine, model); !difference.empty())
        report(log, difference);
    // The engine's own checks report through GoogleTest.
    if (::testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed())
        report(log, "a check of the tree failed");
    return 0;
}
