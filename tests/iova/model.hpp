// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of an allocator of ranges, as a map of payloads: payloads do not touch, and guards are
// empty. The tests and the fuzzer compare the real allocator with it.
#pragma once

#include "moat/core/range.hpp"
#include "moat/core/text.hpp"

#include <cstdint>
#include <map>
#include <string>

namespace moat::iova::testing {

class Model {
  public:
    /// Two payloads lie at least `gap` bytes apart.
    explicit Model(std::uint64_t gap, std::uint64_t granule) : gap_(gap), granule_(granule) {}

    /// Return: the error of a payload at `start`, or nothing.
    [[nodiscard]] std::string check(std::uint64_t start, std::uint64_t size) const {
        const std::uint64_t end = start + rounded(size);
        if (start % granule_ != 0)
            return "not a multiple of the granule: " + hexadecimal(start);
        const auto after = payloads_.lower_bound(start);
        if (after != payloads_.end() && after->first < end + gap_)
            return "payload at " + hexadecimal(after->first) + " is too close to " +
                   text(start, end);
        if (after != payloads_.begin() && std::prev(after)->second + gap_ > start)
            return "payload ending at " + hexadecimal(std::prev(after)->second) +
                   " is too close to " + text(start, end);
        return {};
    }

    void add(std::uint64_t start, std::uint64_t size) {
        payloads_[start] = start + rounded(size);
        bytes_ += rounded(size);
    }

    void remove(std::uint64_t start) {
        const auto found = payloads_.find(start);
        bytes_ -= found->second - found->first;
        payloads_.erase(found);
    }

    [[nodiscard]] bool has(std::uint64_t start) const { return payloads_.contains(start); }

    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

    [[nodiscard]] std::size_t count() const { return payloads_.size(); }

    [[nodiscard]] std::uint64_t rounded(std::uint64_t size) const {
        return (size + granule_ - 1) / granule_ * granule_;
    }

  private:
    static std::string text(std::uint64_t start, std::uint64_t end) {
        return "[" + hexadecimal(start) + ", " + hexadecimal(end) + ")";
    }

    std::map<std::uint64_t, std::uint64_t> payloads_;
    std::uint64_t gap_;
    std::uint64_t granule_;
    std::uint64_t bytes_ = 0;
};

} // namespace moat::iova::testing
