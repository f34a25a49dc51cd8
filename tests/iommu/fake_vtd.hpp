// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A VT-d unit's registers as an array: it executes commands at once, records the invalidations, and
// misbehaves on request.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/vtd.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace moat::tests {

using Pool = TablePool<RealSync>;

class FakeVtd {
  public:
    static constexpr unsigned fault_records = 0x200;
    static constexpr unsigned iotlb = 0x100;
    /// 64K domains, 3 and 4 levels, 48 bits, fault records at 0x200, 2M and 1G leaves, pages.
    static constexpr std::uint64_t usual_capability = 6 | bit(9) | bit(10) | 47ULL << 16 |
                                                      (fault_records / 16ULL) << 24 | bit(34) |
                                                      bit(35) | bit(39) | 9ULL << 48;
    static constexpr std::uint64_t usual_extended = bit(0) | bit(1) | (iotlb / 16ULL) << 8;

    /// The requested invalidations, in the queue's format.
    struct Asked {
        std::uint64_t low;
        std::uint64_t high;

        friend bool operator==(const Asked&, const Asked&) = default;
    };

    explicit FakeVtd(Pool& pool, std::uint64_t capability = usual_capability,
                     std::uint64_t extended = usual_extended)
        : pool_(pool) {
        values[iommu::vtd::reg::version] = 0x10;
        values[iommu::vtd::reg::capability] = capability;
        values[iommu::vtd::reg::extended_capability] = extended;
    }

    std::uint32_t read32(unsigned offset) {
        ++reads;
        return static_cast<std::uint32_t>(values[offset]);
    }

    std::uint64_t read64(unsigned offset) {
        ++reads;
        return values[offset];
    }

    void write32(unsigned offset, std::uint32_t value) {
        namespace reg = iommu::vtd::reg;
        if (offset == reg::global_command && !stuck) {
            if ((value & iommu::vtd::global::write_buffer) != 0)
                ++write_buffer_flushes;
            values[reg::global_status] = value & ~iommu::vtd::global::write_buffer;
        } else if (offset == reg::fault_status) {
            values[offset] &= ~std::uint64_t{value};
        }
    }

    void write64(unsigned offset, std::uint64_t value) {
        namespace reg = iommu::vtd::reg;
        if (offset >= fault_records && offset < fault_records + 0x100) {
            if ((value & bit(63)) != 0)
                values[offset] &= ~bit(63);
            return;
        }
        values[offset] = value;
        if (stuck)
            return;
        if (offset == reg::queue_tail && (values[reg::global_status] & bit(26)) != 0)
            run_queue();
        if (offset == reg::context_command || offset == iotlb + 8) {
            by_registers.push_back({value, offset == iotlb + 8 ? values[iotlb] : 0});
            values[offset] &= ~bit(63);
        }
    }

    bool relax(unsigned attempt) { return attempt < 3; }

    std::map<unsigned, std::uint64_t> values;
    std::vector<Asked> by_queue;
    std::vector<Asked> by_registers;
    unsigned waits = 0;
    unsigned write_buffer_flushes = 0;
    unsigned reads = 0;
    bool stuck = false;                      ///< from now on it ignores commands
    std::function<void()> completed = [] {}; ///< called before it reports a batch's completion

  private:
    void run_queue() {
        namespace reg = iommu::vtd::reg;
        const Word* const queue = pool_.words(PhysicalAddress(values[reg::queue_address]));
        for (std::uint64_t& head = values[reg::queue_head]; head != values[reg::queue_tail];
             head = (head + 16) % 4096) {
            const Asked each{queue[head / 8], queue[head / 8 + 1]};
            if ((each.low & 0xf) != 5) {
                by_queue.push_back(each);
                continue;
            }
            ++waits;
            completed();
            *pool_.words(PhysicalAddress(each.high)) = each.low >> 32;
        }
    }

    Pool& pool_;
};

static_assert(iommu::UnitRegisters<FakeVtd>);

} // namespace moat::tests
