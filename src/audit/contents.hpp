// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Contents: what a device's medium should hold, by the cases that stored it. Fills data to store,
// and compares data that was loaded.
#pragma once

#include "audit/driver.hpp"
#include "audit/finding.hpp"
#include "audit/plan.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace moat::audit {

/// A model of the part of a medium that cases use. Knows nothing until a case has stored something.
class Contents {
  public:
    /// Prepares for a driver's session. Forgets everything if the medium is another one or
    /// was not kept.
    void begin(const Medium& medium);

    /// Fills data for the device, so that it is recognised later.
    static void fill(std::span<std::byte> data, const Medium& medium, const Case& about);

    /// Notes that `about`, which stores, ran. If not `is_certain`, its granules become unknown.
    void note(const Case& about, bool is_certain);

    /// Compares what `about`, which loads, got in `data`. Return: nothing if every known byte is
    /// right.
    [[nodiscard]] std::optional<WrongData> compare(std::span<const std::byte> data,
                                                   const Case& about) const;

  private:
    static constexpr std::uint64_t unknown = ~std::uint64_t{0};

    Medium medium_{};
    std::vector<std::uint64_t> writers_; ///< the last case that stored each unit
};

} // namespace moat::audit
