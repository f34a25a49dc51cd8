// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The listeners of moat.hpp, turned into calls of the caller's callbacks.
#include "container.hpp"

#include "open.hpp"
#include "report.hpp"

#include <algorithm>
#include <utility>

using namespace moat;
using namespace moat::api::c;

Outcome moat_container::open(ContainerConfig config) {
    if (callbacks_.fault != nullptr)
        config.on_fault = [this](const Fault& fault) { call_back(fault); };
    if (callbacks_.driver_error != nullptr)
        config.on_driver_error = [this](const DriverError& error) { call_back(error); };
    const auto options = api::options_of(config);
    if (!options)
        return invalid(options.error());
    auto opened = api::open(config, *options);
    if (!opened)
        return std::unexpected(Failure(opened.error()));
    container_.emplace(std::move(*opened));
    return {};
}

std::expected<moat_device*, Failure> moat_container::attach(std::string_view address,
                                                            machine::Bdf parsed) {
    const std::lock_guard lock(mutex_);
    devices_.reserve(devices_.size() + 1);
    auto attached = container_->attach(address);
    if (!attached)
        return std::unexpected(Failure(attached.error()));
    auto device = std::unique_ptr<moat_device>(
        new moat_device{.owner = *this, .address = parsed, .device = std::move(*attached)});
    return devices_.emplace_back(std::move(device)).get();
}

Outcome moat_container::detach(moat_device& device) {
    if (const auto detached = device.device.detach(); !detached)
        return std::unexpected(Failure(detached.error()));
    const std::lock_guard lock(mutex_);
    std::erase_if(devices_, [&](const auto& each) { return each.get() == &device; });
    return {};
}

Result<CoherentBuffer*> moat_container::allocate_coherent(std::size_t bytes,
                                                          std::string_view label) {
    MOAT_LET(auto made, container_->allocate_coherent(bytes, label));
    const std::lock_guard lock(mutex_);
    const std::uint64_t iova = made.iova();
    if (auto old = coherent_.extract(iova); !old.empty())
        (void)old.mapped().mapping().release(); // moat_unmap undid it
    return &coherent_.emplace(iova, std::move(made)).first->second;
}

Result<void> moat_container::free_coherent(std::uint64_t iova) {
    const auto node = [&] {
        const std::lock_guard lock(mutex_);
        return coherent_.extract(iova);
    }();
    if (node.empty())
        return fail(ErrorCode::not_found, "no coherent memory is at this address", {"iova", iova});
    return node.mapped().mapping().unmap();
}

moat_device* moat_container::find(const fault::Source& source) {
    if (source.kind() != fault::Source::Kind::pci)
        return nullptr;
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find_if(devices_, [&](const auto& each) {
        return each->address.requester() == source.id() &&
               source.segment().value_or(each->address.segment()) == each->address.segment();
    });
    return found != devices_.end() ? found->get() : nullptr;
}

void moat_container::call_back(const Fault& fault) noexcept {
    const moat_report report = {.fault = &fault};
    const FaultForC fault_for_c(report, find(fault.diagnosis().record.source));
    api::c::call_back([&] { callbacks_.fault(callbacks_.context, &fault_for_c.get()); });
}

void moat_container::call_back(const DriverError& error) noexcept {
    const moat_report report = {.driver_error = &error};
    const DriverErrorForC error_for_c(report);
    api::c::call_back([&] { callbacks_.driver_error(callbacks_.context, &error_for_c.get()); });
}
