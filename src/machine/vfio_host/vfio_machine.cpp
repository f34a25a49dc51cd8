// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/vfio_machine.hpp"

#include "moat/core/bits.hpp"

#include "host_domain.hpp"
#include "platform/memory_file.hpp"
#include "vfio_function.hpp"

#include <algorithm>
#include <map>
#include <poll.h>
#include <set>
#include <time.h>
#include <vector>

namespace moat::machine::vfio_host {
namespace {

std::unexpected<Error> no_function(Bdf address) {
    return fail(ErrorCode::not_found, "the function is not bound to vfio-pci: run moat bind",
                {"requester", address.requester()}, {"segment", address.segment()});
}

/// Prefers iommufd, which Linux develops further.
Result<Backend> choose(std::optional<Backend> wanted) {
    if (wanted.value_or(Backend::iommufd) == Backend::iommufd) {
        const auto good = IommufdDomain::probe();
        if (good)
            return Backend::iommufd;
        if (wanted)
            return std::unexpected(good.error());
    }
    if (const auto good = Type1Domain::probe(); !good)
        return std::unexpected(good.error());
    return Backend::type1;
}

} // namespace

class VfioMachine::Parts {
  public:
    Parts(Backend chosen, std::string root, HostFaults both)
        : backend(chosen), sysfs_root(std::move(root)), faults(std::move(both)) {}

    [[nodiscard]] const HostFunction* find(Bdf address) const {
        const auto found = std::ranges::find(
            functions, address, [](const HostFunction& each) { return each.info.address; });
        return found == functions.end() ? nullptr : &*found;
    }

    [[nodiscard]] VfioFunction* find_open(Bdf address) const {
        const auto found = std::ranges::find(
            open_ones, address, [](const VfioFunction* each) { return each->info().address; });
        return found == open_ones.end() ? nullptr : *found;
    }

    const Backend backend;
    const std::string sysfs_root;
    HostFaults faults;
    std::vector<HostFunction> functions;
    std::vector<FunctionInfo> infos;
    std::map<Bdf, std::unique_ptr<Attachment>> attached;
    std::set<VfioFunction*> open_ones;
    std::map<std::uint64_t, platform::Mapping> memory;
};

Result<std::unique_ptr<VfioMachine>> VfioMachine::open(const VfioOptions& options) {
    const auto backend = choose(options.backend);
    if (!backend)
        return std::unexpected(backend.error());
    auto all = list_functions(options.sysfs_root);
    if (!all)
        return std::unexpected(all.error());
    auto faults = HostFaults::open();
    if (!faults)
        return std::unexpected(faults.error());
    auto parts = std::make_unique<Parts>(*backend, options.sysfs_root, std::move(*faults));
    for (HostFunction& each : *all)
        if (each.driver == vfio_driver && !each.bridge) {
            parts->infos.push_back(each.info);
            parts->functions.push_back(std::move(each));
        }
    return std::unique_ptr<VfioMachine>(new VfioMachine(std::move(parts)));
}

VfioMachine::VfioMachine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

VfioMachine::~VfioMachine() {
    MOAT_CHECK(parts_->open_ones.empty() && parts_->attached.empty(),
               "functions are closed and detached before their machine ends");
}

Backend VfioMachine::backend() const {
    return parts_->backend;
}

bool VfioMachine::follows_tracepoint() const {
    return parts_->faults.follows_tracepoint();
}

std::span<const FunctionInfo> VfioMachine::functions() const {
    return parts_->infos;
}

Result<std::unique_ptr<Function>> VfioMachine::open(Bdf address) {
    const HostFunction* const function = parts_->find(address);
    if (function == nullptr)
        return no_function(address);
    if (parts_->find_open(address) != nullptr)
        return fail(ErrorCode::busy, "the function is open already");
    const auto attached = parts_->attached.find(address);
    if (attached == parts_->attached.end())
        return fail(ErrorCode::refused, "attach the function to a domain before opening it");
    auto device = attached->second->open_device();
    if (!device)
        return std::unexpected(device.error());
    return VfioFunction::create(*function, std::move(*device), parts_->open_ones);
}

Result<std::unique_ptr<Domain>> VfioMachine::create_domain() {
    return create_kernel_domain();
}

Result<std::unique_ptr<KernelDomain>> VfioMachine::create_kernel_domain() {
    return parts_->backend == Backend::type1 ? Type1Domain::create() : IommufdDomain::create();
}

Result<void> VfioMachine::attach(Bdf address, Domain& domain) {
    const HostFunction* const function = parts_->find(address);
    if (function == nullptr)
        return no_function(address);
    if (parts_->attached.contains(address))
        return fail(ErrorCode::busy, "the function is attached already");
    auto* const own = dynamic_cast<HostDomain*>(&domain);
    MOAT_CHECK(own != nullptr, "a domain is of the machine that it is attached in");
    auto attached = own->attach(*function, parts_->sysfs_root);
    if (!attached)
        return std::unexpected(attached.error());
    parts_->attached.emplace(address, std::move(*attached));
    return {};
}

Result<void> VfioMachine::detach(Bdf address) {
    if (parts_->find(address) == nullptr)
        return no_function(address);
    if (parts_->find_open(address) != nullptr)
        return fail(ErrorCode::refused, "close the function before detaching it");
    parts_->attached.erase(address);
    return {};
}

Result<SharedMemory> VfioMachine::allocate(ByteCount size, unsigned alignment_lg2) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "cannot allocate 0 bytes");
    constexpr unsigned page_lg2 = 12;
    const ByteCount pages(align_up(std::min(size.value(), bit(62)), page_lg2));
    auto mapping =
        platform::Mapping::create(-1, pages, {.alignment_lg2 = std::max(alignment_lg2, page_lg2)});
    if (!mapping)
        return std::unexpected(mapping.error());
    const std::span<std::byte> bytes = mapping->bytes();
    const auto at = reinterpret_cast<std::uintptr_t>(bytes.data());
    parts_->memory.emplace(at, std::move(*mapping));
    SharedMemory::Owner& owner = *this;
    return Result<SharedMemory>(std::in_place, owner, bytes, PhysicalAddress(at));
}

void VfioMachine::release_shared(PhysicalAddress physical, ByteCount /*size*/) {
    parts_->memory.erase(physical.value());
}

Result<std::uint64_t> VfioMachine::take_faults(FunctionRef<void(const fault::Record&)> each) {
    const auto is_ours = [&](const fault::Source& source) {
        return source.kind() == fault::Source::Kind::pci &&
               std::ranges::any_of(parts_->attached, [&](const auto& attached) {
                   return attached.first.requester() == source.id() &&
                          source.segment().value_or(attached.first.segment()) ==
                              attached.first.segment();
               });
    };
    const auto keep_ours = [&](const fault::LogEvent& decoded) {
        if (is_problem(decoded.kind) && is_ours(decoded.record.source))
            each(decoded.record);
    };
    return parts_->faults.take(keep_ours);
}

Wait VfioMachine::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    // Busy-waits for a while before sleeping, since most events come soon.
    constexpr std::chrono::microseconds looking{50};
    constexpr std::chrono::nanoseconds longest_sleep = std::chrono::milliseconds(1);
    const std::chrono::nanoseconds began = now();
    std::vector<pollfd> files;
    for (VfioFunction* const function : parts_->open_ones)
        for (const platform::FileDescriptor& vector : function->interrupt_files())
            files.push_back({.fd = vector.get(), .events = POLLIN, .revents = 0});
    while (!happened()) {
        const std::chrono::nanoseconds passed = now() - began;
        if (passed >= longest)
            return Wait::timed_out;
        if (passed < looking)
            continue;
        const timespec sleep{.tv_sec = 0,
                             .tv_nsec = std::min(longest - passed, longest_sleep).count()};
        if (::ppoll(files.data(), files.size(), &sleep, nullptr) > 0)
            for (VfioFunction* const function : parts_->open_ones)
                function->collect_interrupts();
    }
    return Wait::happened;
}

std::chrono::nanoseconds VfioMachine::now() {
    return std::chrono::steady_clock::now().time_since_epoch();
}

Result<std::span<std::byte>> VfioMachine::bar_memory(Bdf function, unsigned index) {
    VfioFunction* const open_one = parts_->find_open(function);
    if (open_one == nullptr)
        return fail(ErrorCode::not_found, "the function is not open",
                    {"requester", function.requester()});
    return open_one->bar_memory(index);
}

} // namespace moat::machine::vfio_host
