// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// IovaOwners: whose range the kernel's IOVA allocator frees. The function that frees knows its
// allocator alone; where no probe links that to a device, single owners of a range vote. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace moat::watch {

class IovaOwners {
  public:
    /// A device's domain points to the cookie at this address, which begins with the allocator.
    void link(std::uint64_t cookie, std::string_view device);

    /// The device allocated a range, without a known cookie.
    void allocate(std::uint64_t start, std::string_view device);

    /// The owner of a range that `allocator` frees; empty if unknown. Valid until the next call.
    [[nodiscard]] std::string_view free(std::uint64_t allocator, std::uint64_t start);

  private:
    [[nodiscard]] std::string_view linked(std::uint64_t allocator) const;

    /// Device -> how many freed ranges only it had.
    using Votes = std::map<std::string, unsigned, std::less<>>;

    std::map<std::uint64_t, std::string> cookies_;
    std::multimap<std::uint64_t, std::string> live_; ///< start -> device
    std::map<std::uint64_t, Votes> votes_;           ///< by allocator
};

} // namespace moat::watch
