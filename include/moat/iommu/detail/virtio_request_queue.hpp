// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sends requests to a virtio-iommu, one at a time, and waits for its answers. virtio.hpp
// chooses the requests.
// Source: virtio 1.2, 5.13.6 "Device operations".
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/detail/virtio_queue.hpp"
#include "moat/iommu/detail/virtio_request.hpp"
#include "moat/iommu/unit_registers.hpp"
#include "moat/page_table/table_memory.hpp"

#include <cstddef>
#include <cstdint>

namespace moat::iommu::virtio {

/// Not thread-safe: the caller holds the unit's lock.
template <iommu::UnitRegisters Registers, TableMemory Memory, SyncPolicy Sync, unsigned Slots = 128>
class RequestQueue {
  public:
    using Rings = Queue<Memory, Sync, Slots>;

    /// Two zeroed pages: the rings, and the request with its answer.
    RequestQueue(Registers& registers, Memory& memory, PhysicalAddress rings, PhysicalAddress page)
        : registers_(registers), memory_(memory), rings_(memory, rings), page_(page) {}

    [[nodiscard]] const Rings& rings() const { return rings_; }

    /// Returns when the device has answered; calls notify() to make it look. Errors: no_memory,
    /// not_found; io, as does every later call then.
    template <class Notify>
    [[nodiscard]] Result<void> run(const Request& request, const Notify& notify) {
        if (failed_)
            return fail(ErrorCode::io, "the IOMMU has failed to answer before");
        Word* const words = memory_.words(page_);
        for (std::size_t i = 0; i != request.words.size(); ++i)
            store_word<Sync>(words[i], request.words[i]);
        store_word<Sync>(words[status_word], static_cast<Word>(Status::none));
        rings_.describe(0, {page_, request.bytes, false, std::uint16_t{1}});
        rings_.describe(1, {page_ + ByteCount(status_word * sizeof(Word)), 4, true});
        rings_.offer(0);
        notify();
        for (unsigned attempt = 0; !rings_.take(); ++attempt)
            if (!registers_.relax(attempt))
                return failure("the IOMMU does not answer a request", request, Status::none);
        return outcome(request, static_cast<Status>(load_word<Sync>(words[status_word]) & 0xff));
    }

  private:
    static constexpr std::size_t status_word = 8; ///< of the page with the request

    Result<void> outcome(const Request& request, Status said) {
        switch (said) {
        case Status::ok:
            return {};
        case Status::no_memory:
            return fail(ErrorCode::no_memory, "the IOMMU has no memory for another mapping");
        case Status::no_entry:
            return fail(ErrorCode::not_found, "the IOMMU does not bound this function",
                        {"endpoint", request.words[1]});
        default:
            return failure("the IOMMU refuses a request", request, said);
        }
    }

    Result<void> failure(const char* sentence, const Request& request, Status said) {
        failed_ = true;
        return fail(ErrorCode::io, sentence, {"type", request.words[0] & 0xff},
                    {"status", static_cast<std::uint64_t>(said)});
    }

    Registers& registers_;
    Memory& memory_;
    Rings rings_;
    const PhysicalAddress page_;
    bool failed_ = false;
};

} // namespace moat::iommu::virtio
