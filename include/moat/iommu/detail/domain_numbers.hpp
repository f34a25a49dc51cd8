// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DomainNumbers: which numbers of domains are in use. A unit's driver has one, under its lock.
#pragma once

#include "moat/core/result.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace moat::iommu {

/// Numbers from 1 on; 0 is never allocated.
class DomainNumbers {
  public:
    /// `count` includes 0.
    explicit DomainNumbers(unsigned count) : count_(count) {}

    /// The lowest free one. Errors: limit.
    [[nodiscard]] Result<std::uint16_t> take() {
        for (std::size_t number = 1; number != count_; ++number) {
            if (number == used_.size())
                used_.push_back(false);
            if (!used_[number]) {
                used_[number] = true;
                return static_cast<std::uint16_t>(number);
            }
        }
        return fail(ErrorCode::limit, "the unit has no more domains", {"domains", count_});
    }

    /// Ignores a number that is not in use.
    void give_back(std::uint16_t number) {
        if (number != 0 && number < used_.size())
            used_[number] = false;
    }

  private:
    unsigned count_;
    std::vector<bool> used_ = {true};
};

} // namespace moat::iommu
