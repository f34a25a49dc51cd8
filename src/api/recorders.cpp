// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "recorders.hpp"

#include "platform/stack.hpp"

#include <atomic>
#include <iostream>
#include <map>
#include <mutex>
#include <utility>

namespace moat::api {

namespace {

constexpr auto recorded_symbols = [](std::uintptr_t address, fault::FrameSink sink) {
    platform::symbolise(address, sink);
};

} // namespace

Result<std::shared_ptr<dma::SpaceRecorder>> recorder_of(const std::string& file) {
    static std::mutex mutex;
    static std::map<std::string, std::shared_ptr<dma::SpaceRecorder>> recorders;
    const std::lock_guard lock(mutex);
    std::shared_ptr<dma::SpaceRecorder>& known = recorders[file];
    if (known == nullptr) {
        MOAT_LET(auto created, dma::SpaceRecorder::create(file, std::cerr, recorded_symbols));
        known = std::move(created);
    }
    return known;
}

std::string next_container_name() {
    static std::atomic<unsigned> last{0};
    return "container " + std::to_string(++last);
}

} // namespace moat::api
