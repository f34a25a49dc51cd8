// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mappings: what a container or an I/O address space has mapped, within the limits of the process.
#pragma once

#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstdint>
#include <map>

namespace moat::run::vfio {

/// What the whole machine shares.
struct Host {
    std::vector<DeviceShape> devices;
    VfioLimits limits;
    Effects& effects;
    std::uint64_t locked = 0; ///< bytes of all mappings
    std::uint64_t maps = 0;   ///< that had right arguments
    std::uint32_t spaces = 0; ///< ever made

    [[nodiscard]] Space make_space() { return Space{++spaces}; }

    /// The smallest page.
    [[nodiscard]] std::uint64_t page() const { return limits.page_sizes & -limits.page_sizes; }

    /// Whether devices reach all of these addresses.
    [[nodiscard]] bool reachable(IovaRange range) const;
};

/// Sorted by address; they do not overlap.
class Mappings {
  public:
    using Sorted = std::map<std::uint64_t, DmaMap>;
    using Iterator = Sorted::const_iterator;

    explicit Mappings(Host& host) : host_(&host), space_(host.make_space()) {}

    [[nodiscard]] Space space() const { return space_; }

    [[nodiscard]] std::size_t size() const { return sorted_.size(); }

    [[nodiscard]] Iterator begin() const { return sorted_.begin(); }

    [[nodiscard]] Iterator end() const { return sorted_.end(); }

    /// The first mapping that ends at or behind `address`.
    [[nodiscard]] Iterator at_or_behind(std::uint64_t address) const;

    /// The first mapping that has a byte of `range`, which is not empty; end() if none has.
    [[nodiscard]] Iterator first_in(IovaRange range) const;

    /// `range` is not empty and overlaps no mapping. Return: an error of errno, then it is
    /// unchanged: ENOMEM beyond the limit of locked memory, EFAULT, the chosen failure.
    [[nodiscard]] int add(IovaRange range, std::uint64_t memory, fault::Allows allows);

    /// Tells that a map of these failed. Return: `error`.
    [[nodiscard]] int fail(IovaRange range, std::uint64_t memory, fault::Allows allows,
                           int error) const;

    /// Return: the mapping behind it.
    Iterator remove(Iterator mapping);

    /// Return: how many bytes were mapped.
    std::uint64_t remove_all();

  private:
    [[nodiscard]] int try_to_map(const DmaMap& map) const;

    Host* host_;
    Space space_;
    Sorted sorted_ = {};
    Sorted::node_type spare_ = {}; ///< of the latest removal, for the next one
};

} // namespace moat::run::vfio
