// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds the live range that a caller names; a release's errors come from here.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iova/detail/central.hpp"

#include <cstdint>

namespace moat::iova {

template <SyncPolicy Sync>
class Lookup {
  public:
    using Range = Entry<Sync>;
    using Word = typename LiveMap<Sync>::Word;

    Lookup(const Central<Sync>& central, unsigned granule_lg2)
        : central_(central), granule_lg2_(granule_lg2) {}

    /// Moves a live range from `live` to `next`. Errors: `empty`, `not_found`, `mismatch`.
    [[nodiscard]] Result<Range> take(Iova iova, ByteCount size, State next) const {
        const std::uint64_t payload = whole_pages(size, granule_lg2_);
        if (payload == 0)
            return fail(ErrorCode::empty, "a range has at least one byte", {"iova", iova.value()});
        Word* const word = is_aligned(iova.value(), granule_lg2_)
                               ? central_.map().find_word(iova.value() >> page_lg2)
                               : nullptr;
        std::uint32_t value = word != nullptr ? word->load(std::memory_order_acquire) : 0;
        const Range range{iova, word};
        if (record::state_of(value) != State::live)
            return not_live(range, size, record::state_of(value));
        if (const std::uint64_t allocated = central_.payload_of(range); allocated != payload)
            return fail(ErrorCode::mismatch, "this range was allocated with another size",
                        {"iova", iova.value()}, {"size", size.value()},
                        {"allocated_size", allocated << page_lg2});
        if (!word->compare_exchange_strong(value, record::with_state(value, next),
                                           std::memory_order_acq_rel, std::memory_order_acquire))
            return fail(ErrorCode::not_found, "another thread released this range meanwhile",
                        {"iova", iova.value()}, {"size", size.value()});
        return range;
    }

    /// A range that the calling thread has claimed.
    [[nodiscard]] Range claimed(Iova iova) const {
        Word* const word = central_.map().find_word(iova.value() >> page_lg2);
        MOAT_CHECK(word != nullptr &&
                       record::state_of(word->load(std::memory_order_relaxed)) == State::claimed,
                   "the calling thread has claimed the range");
        return {iova, word};
    }

  private:
    [[nodiscard]] std::unexpected<Error> not_live(const Range& range, ByteCount size,
                                                  State state) const {
        const std::uint64_t iova = range.start.value();
        switch (state) {
        case State::claimed:
            return fail(ErrorCode::not_found, "another thread is releasing this range",
                        {"iova", iova}, {"size", size.value()});
        case State::held:
            return fail(ErrorCode::not_found, "this range is held: its invalidation failed",
                        {"iova", iova}, {"size", size.value()});
        case State::cached:
        case State::queued:
        case State::quarantined:
            return fail(ErrorCode::not_found, "this range was released already", {"iova", iova},
                        {"size", size.value()},
                        {"allocated_size", central_.payload_of(range) << page_lg2});
        case State::none:
        case State::live:
            break;
        }
        return fail(ErrorCode::not_found, "no live range starts here", {"iova", iova},
                    {"size", size.value()});
    }

    const Central<Sync>& central_;
    const unsigned granule_lg2_;
};

} // namespace moat::iova
