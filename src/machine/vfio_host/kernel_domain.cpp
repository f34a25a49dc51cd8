// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/kernel_domain.hpp"

#include <algorithm>

namespace moat::machine::vfio_host {

Result<void> KernelDomain::set_limits(const std::vector<IovaRange>& reachable,
                                      std::uint64_t leaf_sizes) {
    if (reachable.empty() || leaf_sizes == 0)
        return fail(ErrorCode::unsupported,
                    "the kernel reports no address that the function reaches");
    const IovaRange aperture =
        IovaRange::inclusive(reachable.front().start(), reachable.back().last());
    std::vector<IovaRange> reserved;
    for (std::size_t i = 1; i < reachable.size(); ++i) {
        const std::uint64_t first = reachable[i - 1].last().value() + 1;
        const std::uint64_t end = reachable[i].start().value();
        if (first < end)
            reserved.emplace_back(Iova(first), ByteCount(end - first));
    }
    if (limits_.leaf_sizes != 0) {
        if (aperture == limits_.aperture && reserved == reserved_ &&
            leaf_sizes == limits_.leaf_sizes)
            return {};
        return fail(ErrorCode::mismatch,
                    "the function reaches fewer addresses than the other functions of this domain: "
                    "attach it first, or give it its own domain",
                    {"aperture", aperture.start().value()},
                    {"aperture_size", aperture.size().value()});
    }
    reserved_ = std::move(reserved);
    limits_ = {.aperture = aperture, .reserved = reserved_, .leaf_sizes = leaf_sizes};
    return {};
}

Result<void> KernelDomain::check(Iova start, ByteCount size, PhysicalAddress memory) const {
    if (const auto good = iommu::check_limits(limits_, start, size); !good)
        return good;
    const std::uint64_t page = limits_.leaf_sizes & (~limits_.leaf_sizes + 1);
    if (((start.value() | size.value() | memory.value()) & (page - 1)) != 0)
        return fail(ErrorCode::unaligned, "whole pages are mapped", {"start", start.value()},
                    {"size", size.value()}, {"memory", memory.value()}, {"page", page});
    return {};
}

} // namespace moat::machine::vfio_host
