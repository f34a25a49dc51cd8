// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Devices that come and go, and listeners that are called.
#include "core.hpp"

#include "moat/core/check.hpp"

#include "block.hpp"
#include "platform/stack.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <utility>

namespace moat::api {

namespace {

constexpr auto symbols = [](std::uintptr_t address, fault::FrameSink sink) {
    platform::symbolise(address, sink);
};

/// Counts the listeners that run.
class Counted {
  public:
    explicit Counted(std::atomic<unsigned>& count) : count_(count) { ++count_; }

    ~Counted() { --count_; }

    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

  private:
    std::atomic<unsigned>& count_;
};

/// Calls a listener. An access of a device, a destructor or free() may be the caller: none of them
/// can take an exception.
template <class Call>
void call_listener(Call&& call) noexcept {
    const auto complain = [](const char* what) noexcept {
        std::fprintf(stderr, "moat: a listener threw an exception: %s\n", what);
    };
    try {
        call();
    } catch (const std::exception& thrown) {
        complain(thrown.what());
    } catch (...) {
        complain("no std::exception");
    }
}

} // namespace

Mapper::~Mapper() = default;

Core::Core(const ContainerConfig& config, const dma::Options& options)
    : Mapper(take_anchor(), map_nothing, end_nothing),
      defers_(options.unmapping == Unmapping::deferred && options.level != Level::exact),
      on_fault_(config.on_fault), on_driver_error_(config.on_driver_error),
      to_stderr_(std::cerr, options.report, {.symbolise = symbols}),
      stderr_listener_(to_stderr_.listener()) {}

Core::~Core() {
    end_links(anchor());
    return_anchor(anchor());
}

Result<Device> Core::attach(machine::Bdf address, DeviceModel* model) {
    const std::lock_guard lock(devices_mutex_);
    if (closing_)
        return fail(ErrorCode::busy, "the container is being closed");
    const auto known = std::ranges::find_if(
        devices_, [&](const auto& each) { return each->address() == address; });
    if (known != devices_.end())
        return attach_again(*known, model);
    if (model != nullptr)
        if (const auto other = model->device_.lock(); other != nullptr && other->live)
            return fail(ErrorCode::busy, "the model is attached: one model is one device");
    devices_.reserve(devices_.size() + 1);
    MOAT_LET(auto made, make_device(address, model));
    made->core = this;
    if (model != nullptr)
        model->device_ = made;
    devices_.push_back(made);
    return Device(std::move(made));
}

/// One that was abandoned stays attached as long as mappings need it.
Result<Device> Core::attach_again(std::shared_ptr<AttachedDevice>& known, DeviceModel* model) {
    if (known->live)
        return fail(ErrorCode::busy, "the device is attached already",
                    {"requester", known->address().requester()});
    MOAT_LET(auto made, reopen_device(known->address(), model));
    known->core = nullptr;
    known = std::move(made);
    known->core = this;
    return Device(known);
}

Result<std::shared_ptr<AttachedDevice>> Core::reopen_device(machine::Bdf /*address*/,
                                                            DeviceModel* /*model*/) {
    return fail(ErrorCode::busy, "the device is being detached");
}

Result<void> Core::detach(AttachedDevice& device) {
    std::shared_ptr<AttachedDevice> last; // ends without the lock
    const std::lock_guard lock(devices_mutex_);
    if (device.turn.is_taken())
        return fail(ErrorCode::busy, "the device is in the middle of an access");
    if (devices_.size() == 1 && needs_a_device())
        return fail(ErrorCode::busy, "this is the last device, and something is mapped: unmap it "
                                     "first");
    const auto found = std::ranges::find(devices_, &device, &std::shared_ptr<AttachedDevice>::get);
    MOAT_CHECK(found != devices_.end(), "a device is detached from its own container");
    last = std::move(*found);
    devices_.erase(found);
    last->core = nullptr;
    last->live = false;
    last->stop();
    last->leave();
    return {};
}

void Core::abandon(AttachedDevice& device) {
    device.abandoned = true;
    if (device.turn.is_taken())
        return; // the access under way calls again
    if (!detach(device)) {
        device.live = false;
        device.stop();
    }
}

Result<void> Core::close() {
    if (in_listeners_ != 0)
        return fail(ErrorCode::busy, "a listener does not end its own container");
    closing_ = true;
    for (const auto& each : devices_) {
        each->live = false;
        each->stop();
    }
    end_space();
    for (const auto& each : devices_) {
        each->core = nullptr;
        each->leave();
    }
    devices_.clear();
    end_links(anchor());
    return {};
}

std::unexpected<Error> Core::no_space_yet() const {
    if (closing_)
        return fail(ErrorCode::busy, "the container is being closed");
    return fail(ErrorCode::refused,
                "attach a device first: what can be mapped is known from then on");
}

Result<Iova> Core::map_nothing(Mapper& core, const Memory& /*memory*/, Direction /*direction*/,
                               std::string_view /*label*/) {
    return static_cast<Core&>(core).no_space_yet();
}

void Core::end_nothing(Mapper& core, std::uint64_t /*iova*/, std::size_t /*bytes*/,
                       Direction /*direction*/, Block* block) noexcept {
    auto& self = static_cast<Core&>(core);
    BlockShare share(block);
    if (block != nullptr)
        leave_behind(self, share, self.no_space_yet());
}

dma::Listener Core::listener() {
    return {.fault =
                [](void* self, const fault::Diagnosis& diagnosis) noexcept {
                    static_cast<Core*>(self)->report(diagnosis);
                },
            .driver_error =
                [](void* self, const dma::DriverError& error) noexcept {
                    static_cast<Core*>(self)->report(error);
                },
            .context = this};
}

void Core::report(const fault::Diagnosis& diagnosis) noexcept {
    const Counted counted(in_listeners_);
    if (on_fault_ == nullptr)
        return stderr_listener_.fault(stderr_listener_.context, diagnosis);
    call_listener([&] { on_fault_(Fault(diagnosis, page_bytes())); });
}

void Core::report(const dma::DriverError& error) noexcept {
    const Counted counted(in_listeners_);
    if (on_driver_error_ == nullptr)
        return stderr_listener_.driver_error(stderr_listener_.context, error);
    call_listener([&] { on_driver_error_(DriverError(error)); });
}

} // namespace moat::api
