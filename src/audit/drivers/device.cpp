// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/drivers/device.hpp"

namespace moat::audit {

using namespace std::chrono_literals;

Result<void> DeviceDriver::obtain(std::initializer_list<KeptBuffer> wanted) {
    for (const KeptBuffer& each : wanted) {
        MOAT_LET(each.buffer, seat_.buffers.obtain(each.need));
    }
    return {};
}

Result<void> DeviceDriver::enable_interrupts(unsigned wanted) {
    const auto vectors = function().enable_interrupts(wanted);
    if (!vectors && vectors.error().code() != ErrorCode::unsupported)
        return std::unexpected(vectors.error());
    vectors_ = vectors.value_or(0);
    return {};
}

Result<bool> DeviceDriver::wait_until(FunctionRef<bool()> happened,
                                      std::chrono::nanoseconds longest) {
    if (seat_.before_wait)
        seat_.before_wait();
    const auto waited = seat_.machine.wait_until(happened, longest);
    MOAT_TRY(health());
    return waited == machine::Wait::happened;
}

Result<void> DeviceDriver::require(FunctionRef<bool()> happened, std::chrono::nanoseconds longest,
                                   const char* message) {
    MOAT_LET(const bool waited, wait_until(happened, longest));
    return waited ? Result<void>{} : fail(ErrorCode::io, message);
}

Result<bool> DeviceDriver::wait_for_completion(unsigned vector, FunctionRef<bool()> completed,
                                               FunctionRef<bool()> is_broken,
                                               std::chrono::nanoseconds longest) {
    bool interrupted = vectors_ == 0;
    auto done = [&] {
        interrupted = interrupted || function().take_interrupt(vector);
        return interrupted && completed();
    };
    const auto soon = wait_until(done, 20ms);
    if (!soon || *soon)
        return soon;
    return wait_until(done,
                      is_broken() ? 0s : longest); // is_broken may find that the machine failed
}

} // namespace moat::audit
