// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The owner of a backend and its devices, and the listener that turns what was found into calls of
// the caller's callbacks.
#include "container.hpp"

#include "platform/stack.hpp"
#include "report.hpp"

#include <algorithm>
#include <iostream>
#include <utility>

namespace moat::c_api {

namespace {

/// A number of the calling thread that no other living one has; not 0.
[[nodiscard]] std::uintptr_t this_thread() {
    thread_local const char mark = 0;
    return reinterpret_cast<std::uintptr_t>(&mark);
}

constexpr auto symbols = [](std::uintptr_t address, fault::FrameSink sink) {
    platform::symbolise(address, sink);
};

[[nodiscard]] std::size_t capture(std::span<std::uintptr_t> frames) {
    return platform::capture_stack(frames, 1);
}

/// As it says, in the container's name, that a callback runs.
class Counted {
  public:
    explicit Counted(std::atomic<unsigned>& count) : count_(count) { ++count_; }

    ~Counted() { --count_; }

    Counted(const Counted&) = delete;
    Counted& operator=(const Counted&) = delete;

  private:
    std::atomic<unsigned>& count_;
};

} // namespace

bool Turn::take() {
    const std::uintptr_t self = this_thread();
    std::uintptr_t nobody = 0;
    if (!owner_.compare_exchange_strong(nobody, self, std::memory_order_acquire) && nobody != self)
        return false;
    ++depth_;
    return true;
}

void Turn::leave() {
    if (--depth_ == 0)
        owner_.store(0, std::memory_order_release);
}

} // namespace moat::c_api

using namespace moat;
using namespace moat::c_api;

moat_container::moat_container(const Callbacks& callbacks, dma::ReportForm form)
    : callbacks_(callbacks), to_stderr_(std::cerr, form, {.symbolise = symbols}),
      stderr_listener_(to_stderr_.listener()) {}

Outcome moat_container::open(const moat_config& config, const dma::Options& options) {
    using machine::vfio_host::Backend;
    const dma::SpaceConfig wanted = {
        .options = options,
        .dma_mask = Iova(config.dma_mask),
        .listener = {.fault =
                         [](void* self, const fault::Diagnosis& diagnosis) noexcept {
                             static_cast<moat_container*>(self)->tell(diagnosis);
                         },
                     .driver_error =
                         [](void* self, const dma::DriverError& error) noexcept {
                             static_cast<moat_container*>(self)->tell(error);
                         },
                     .context = this},
        .capture = capture,
        .pages = dma::own_pages()};
    auto opened = [&]() -> std::expected<std::unique_ptr<c_api::Backend>, Failure> {
        switch (config.backend) {
        case MOAT_BACKEND_SOFT:
            return open_soft(wanted, config.tables);
        case MOAT_BACKEND_VFIO:
            return open_vfio(wanted, std::nullopt);
        case MOAT_BACKEND_TYPE1:
            return open_vfio(wanted, Backend::type1);
        case MOAT_BACKEND_IOMMUFD:
            return open_vfio(wanted, Backend::iommufd);
        default:
            return invalid("moat_config.backend is none of MOAT_BACKEND_...", "backend",
                           static_cast<std::uint32_t>(config.backend));
        }
    }();
    if (!opened)
        return std::unexpected(opened.error());
    backend_ = std::move(*opened);
    return {};
}

Outcome moat_container::close() {
    if (in_callbacks_ != 0)
        return busy("a container is not closed by its own callback");
    closing_ = true;
    if (backend_ == nullptr)
        return {};
    for (const auto& each : devices_)
        each->device->stop();
    backend_->end_space();
    devices_.clear();
    return {};
}

Outcome moat_container::usable() const {
    if (closing_)
        return busy("the container is being closed");
    return {};
}

std::expected<moat_device*, Failure> moat_container::attach(machine::Bdf address) {
    const std::lock_guard lock(devices_mutex_);
    for (const auto& each : devices_)
        if (each->address == address)
            return busy("the device is attached already");
    devices_.reserve(devices_.size() + 1);
    auto device = std::make_unique<moat_device>(*this, address);
    auto attached = backend_->attach(address);
    if (!attached)
        return std::unexpected(attached.error());
    device->device = std::move(*attached);
    return devices_.emplace_back(std::move(device)).get();
}

Outcome moat_container::detach(moat_device& device) {
    const std::lock_guard lock(devices_mutex_);
    if (device.turn.is_taken())
        return busy("the device is in the middle of an access");
    if (devices_.size() == 1 && backend_->needs_a_device())
        return busy("this is the last device, and something is mapped: unmap it first");
    std::erase_if(devices_, [&](const auto& each) { return each.get() == &device; });
    return {};
}

std::string_view moat_container::keep_label(const char* label) {
    if (label == nullptr)
        return "";
    const std::lock_guard lock(labels_mutex_);
    const auto known = labels_.find(std::string_view(label));
    return known != labels_.end() ? *known : *labels_.emplace(label).first;
}

moat_device* moat_container::find(const fault::Source& source) {
    if (source.kind() != fault::Source::Kind::pci)
        return nullptr;
    const std::lock_guard lock(devices_mutex_);
    const auto found = std::ranges::find_if(devices_, [&](const auto& each) {
        return each->address.requester() == source.id() &&
               source.segment().value_or(each->address.segment()) == each->address.segment();
    });
    return found != devices_.end() ? found->get() : nullptr;
}

moat_report moat_container::report_of() {
    const auto limits = backend_ != nullptr ? backend_->limits() : fail(ErrorCode::busy, "");
    return {.page_bytes = limits ? limits->domain.leaf_sizes & -limits->domain.leaf_sizes : 4096};
}

void moat_container::tell(const fault::Diagnosis& diagnosis) noexcept {
    const Counted counted(in_callbacks_);
    if (callbacks_.fault == nullptr)
        return stderr_listener_.fault(stderr_listener_.context, diagnosis);
    moat_report report = report_of();
    report.fault = &diagnosis;
    const FaultForC fault(report, find(diagnosis.record.source));
    call_back([&] { callbacks_.fault(callbacks_.context, &fault.get()); });
}

void moat_container::tell(const dma::DriverError& error) noexcept {
    const Counted counted(in_callbacks_);
    if (callbacks_.driver_error == nullptr)
        return stderr_listener_.driver_error(stderr_listener_.context, error);
    moat_report report = report_of();
    report.driver_error = &error;
    const DriverErrorForC error_for_c(report);
    call_back([&] { callbacks_.driver_error(callbacks_.context, &error_for_c.get()); });
}
