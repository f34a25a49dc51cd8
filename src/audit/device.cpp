// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/device.hpp"

namespace moat::audit {

using namespace std::chrono_literals;

Result<void> Device::obtain(BufferSource& source, std::initializer_list<KeptBuffer> wanted) {
    for (const KeptBuffer& each : wanted) {
        const auto got = source.obtain(each.need);
        if (!got)
            return std::unexpected(got.error());
        each.buffer = *got;
    }
    return {};
}

Result<void> Device::enable_interrupts(unsigned wanted) {
    const auto vectors = function_.enable_interrupts(wanted);
    if (!vectors && vectors.error().code() != ErrorCode::unsupported)
        return std::unexpected(vectors.error());
    vectors_ = vectors.value_or(0);
    return {};
}

Result<bool> Device::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    const auto waited = machine_.wait_until(happened, longest);
    if (const auto healthy = machine_.health(); !healthy)
        return std::unexpected(healthy.error());
    return waited == machine::Wait::happened;
}

Result<void> Device::require(FunctionRef<bool()> happened, std::chrono::nanoseconds longest,
                             const char* message) {
    const auto waited = wait_until(happened, longest);
    if (!waited)
        return std::unexpected(waited.error());
    return *waited ? Result<void>{} : fail(ErrorCode::io, message);
}

Result<bool> Device::wait_for_completion(unsigned vector, FunctionRef<bool()> completed,
                                         FunctionRef<bool()> is_broken) {
    bool interrupted = vectors_ == 0;
    auto done = [&] {
        interrupted = interrupted || function_.take_interrupt(vector);
        return interrupted && completed();
    };
    const auto soon = wait_until(done, 20ms);
    if (!soon || *soon)
        return soon;
    return wait_until(done, is_broken() ? 0s : 5s); // is_broken may find that the machine failed
}

} // namespace moat::audit
