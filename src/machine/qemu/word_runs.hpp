// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// WordRuns: joins the records of an IOMMU that reports a blocked transfer word by word.
// driven_iommu.hpp uses it for QEMU's SMMUv3 and virtio-iommu.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/function_ref.hpp"
#include "moat/fault/record.hpp"

#include <cstdint>
#include <optional>

namespace moat::machine::qemu {

/// QEMU performs a blocked transfer as accesses of 1, 2 or 4 bytes, each aligned, at rising
/// addresses, and translates some of them twice. A run of them becomes one record: exact at its
/// start, and rounded up to 4 bytes at its end. Passes it on when the next run begins; `finish`
/// passes on the last one.
class WordRuns {
  public:
    /// `each` outlives this object.
    explicit WordRuns(FunctionRef<void(const fault::Record&)> each) : each_(each) {}

    void add(const fault::Record& word) {
        if (word.precision != fault::Precision::start) {
            finish();
            each_(word);
            return;
        }
        const std::uint64_t first = word.where.start().value();
        const std::uint64_t last = first | 3;
        if (run_ && is_next(word)) {
            grow(last);
        } else {
            finish();
            run_ = word;
            run_->precision = fault::Precision::exact;
            grow(last);
        }
        newest_ = first;
    }

    void finish() {
        if (run_)
            each_(*run_);
        run_.reset();
    }

  private:
    [[nodiscard]] bool is_next(const fault::Record& word) const {
        const std::uint64_t first = word.where.start().value();
        const std::uint64_t end = run_->where.last().value();
        return run_->source == word.source && run_->access == word.access &&
               run_->code == word.code && run_->pasid == word.pasid && first >= newest_ &&
               (first <= end || first - end == 1);
    }

    void grow(std::uint64_t last) {
        const Iova start = run_->where.start();
        run_->where = IovaRange(start, ByteCount(last - start.value() + 1));
    }

    FunctionRef<void(const fault::Record&)> each_;
    std::optional<fault::Record> run_;
    std::uint64_t newest_ = 0;
};

} // namespace moat::machine::qemu
