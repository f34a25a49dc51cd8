// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "source.hpp"

#include <utility>

namespace moat::watch {

class TraceSource::State {
  public:
    std::vector<std::string> devices;
};

TraceSource::TraceSource(std::unique_ptr<State> state) : state_(std::move(state)) {}

TraceSource::TraceSource(TraceSource&&) noexcept = default;
TraceSource& TraceSource::operator=(TraceSource&&) noexcept = default;
TraceSource::~TraceSource() = default;

std::expected<TraceSource, std::string> TraceSource::begin(const SourceOptions& /*options*/) {
    return std::unexpected("tracing is not implemented in this build; use a recording");
}

std::vector<std::string> TraceSource::sources() const {
    return {};
}

const std::vector<std::string>& TraceSource::devices() const {
    return state_->devices;
}

std::vector<int> TraceSource::descriptors() const {
    return {};
}

Result<void> TraceSource::poll(fault::DmaEventSink /*sink*/) {
    return {};
}

Result<void> TraceSource::finish(fault::DmaEventSink sink) {
    return poll(sink);
}

} // namespace moat::watch
