// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine_core.hpp"

#include <vector>

namespace moat::api {

namespace {

[[nodiscard]] std::unexpected<Error> not_ours() {
    return fail(ErrorCode::unsupported,
                "only a soft device is played: this one accesses memory and interrupts by itself");
}

[[nodiscard]] std::unexpected<Error> no_models() {
    return fail(ErrorCode::unsupported, "models are for Backend::soft");
}

} // namespace

Result<Access> MachineDevice::read(Iova /*from*/, std::span<std::byte> /*into*/) {
    return not_ours();
}

Result<Access> MachineDevice::write(Iova /*to*/, std::span<const std::byte> /*from*/) {
    return not_ours();
}

Result<void> MachineDevice::raise_interrupt(unsigned /*vector*/) {
    return not_ours();
}

Result<machine::Registers*> MachineDevice::bar(unsigned index) {
    const std::lock_guard lock(host_.mutex);
    return function_->bar(index);
}

Result<std::span<std::byte>> MachineDevice::bar_memory(unsigned index) {
    return fail(ErrorCode::unsupported, "this backend maps no BAR into the process",
                {"bar", index});
}

Result<unsigned> MachineDevice::enable_interrupts(unsigned wanted) {
    if (wanted == 0)
        return fail(ErrorCode::empty, "no interrupt vectors are wanted");
    const std::lock_guard lock(host_.mutex);
    const auto enabled = function_->enable_interrupts(wanted);
    vectors_ = enabled.value_or(0);
    return enabled;
}

Result<bool> MachineDevice::take_interrupt(unsigned vector) {
    const std::lock_guard lock(host_.mutex);
    if (vector >= vectors_)
        return fail(ErrorCode::out_of_range, "this interrupt vector is not enabled",
                    {"vector", vector}, {"enabled", vectors_});
    return function_->take_interrupt(vector);
}

void MachineDevice::stop() {
    const std::lock_guard lock(host_.mutex);
    if (function_ == nullptr)
        return;
    function_->set_bus_master(false);
    (void)function_->reset();
    function_.reset();
    vectors_ = 0;
}

Result<void> MachineDevice::start() {
    const std::lock_guard lock(host_.mutex);
    MOAT_LET(auto opened, host_.machine->open(address()));
    function_ = std::move(opened);
    function_->set_bus_master(true);
    return {};
}

void MachineDevice::leave() {
    const std::lock_guard lock(host_.mutex);
    (void)host_.machine->detach(address());
}

Result<std::shared_ptr<AttachedDevice>> MachineCore::make_device(machine::Bdf address,
                                                                 DeviceModel* model) {
    if (model != nullptr)
        return no_models();
    auto device = new_device(address);
    {
        const std::lock_guard lock(host_->mutex);
        MOAT_TRY(host_->machine->attach(address, machines_domain_));
    }
    const auto begun = [&]() -> Result<void> {
        MOAT_TRY(device->start());
        return space() != nullptr ? Result<void>() : begin();
    }();
    if (!begun) {
        device->stop();
        device->leave();
        return std::unexpected(begun.error());
    }
    return device;
}

Result<std::shared_ptr<AttachedDevice>> MachineCore::reopen_device(machine::Bdf address,
                                                                   DeviceModel* model) {
    if (model != nullptr)
        return no_models();
    auto device = new_device(address);
    MOAT_TRY(device->start());
    return device;
}

Result<PolledFaults> MachineCore::poll() {
    std::vector<fault::Record> records;
    const auto keep = [&](const fault::Record& record) { records.push_back(record); };
    const auto lost = [&] {
        const std::lock_guard lock(host_->mutex);
        return host_->machine->take_faults(keep);
    }();
    if (!lost)
        return std::unexpected(lost.error());
    if (space() != nullptr)
        for (const fault::Record& each : records)
            space()->fault(each);
    return PolledFaults{records.size(), *lost};
}

} // namespace moat::api
