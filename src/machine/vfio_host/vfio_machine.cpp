// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_host/vfio_machine.hpp"

#include "moat/core/bits.hpp"

#include "platform/try.hpp"
#include "vfio_function.hpp"

#include <algorithm>
#include <poll.h>
#include <time.h>

namespace moat::machine::vfio_host {
namespace {

std::unexpected<Error> no_function(Bdf address) {
    return fail(ErrorCode::not_found, "the function is not bound to vfio-pci: run moat bind",
                {"requester", address.requester()}, {"segment", address.segment()});
}

/// Prefers iommufd, which Linux develops further.
Result<Backend> choose(std::optional<Backend> wanted) {
    if (wanted.value_or(Backend::iommufd) == Backend::iommufd) {
        const auto good = probe_iommufd();
        if (good)
            return Backend::iommufd;
        if (wanted)
            return std::unexpected(good.error());
    }
    MOAT_TRY(probe_type1());
    return Backend::type1;
}

} // namespace

Result<std::unique_ptr<VfioMachine>> VfioMachine::open(const VfioOptions& options) {
    MOAT_LET(const Backend backend, choose(options.backend));
    MOAT_LET(auto all, list_functions(options.sysfs_root));
    MOAT_LET(auto faults, HostFaults::open());
    std::unique_ptr<VfioMachine> machine(
        new VfioMachine(backend, options.sysfs_root, std::move(faults)));
    for (HostFunction& each : all)
        if (each.driver == vfio_driver && !each.bridge) {
            machine->infos_.push_back(each.info);
            machine->functions_.push_back(std::move(each));
        }
    return machine;
}

VfioMachine::~VfioMachine() {
    MOAT_CHECK(open_ones_.empty() && attached_.empty(),
               "functions are closed and detached before their machine ends");
}

const HostFunction* VfioMachine::find(Bdf address) const {
    const auto found = std::ranges::find(
        functions_, address, [](const HostFunction& each) { return each.info.address; });
    return found == functions_.end() ? nullptr : &*found;
}

VfioFunction* VfioMachine::find_open(Bdf address) const {
    const auto found = std::ranges::find(
        open_ones_, address, [](const VfioFunction* each) { return each->info().address; });
    return found == open_ones_.end() ? nullptr : *found;
}

Result<std::unique_ptr<Function>> VfioMachine::open(Bdf address) {
    const HostFunction* const function = find(address);
    if (function == nullptr)
        return no_function(address);
    if (find_open(address) != nullptr)
        return fail(ErrorCode::busy, "the function is open already");
    const auto attached = attached_.find(address);
    if (attached == attached_.end())
        return fail(ErrorCode::refused, "attach the function to a domain before opening it");
    MOAT_LET(platform::FileDescriptor device, attached->second());
    return VfioFunction::create(*function, std::move(device), open_ones_);
}

Result<std::unique_ptr<KernelDomain>> VfioMachine::create_kernel_domain() {
    return backend_ == Backend::type1 ? create_type1_domain() : create_iommufd_domain();
}

Result<void> VfioMachine::attach(Bdf address, Domain& domain) {
    const HostFunction* const function = find(address);
    if (function == nullptr)
        return no_function(address);
    if (attached_.contains(address))
        return fail(ErrorCode::busy, "the function is attached already");
    auto* const own = dynamic_cast<KernelDomain*>(&domain);
    MOAT_CHECK(own != nullptr, "a domain is of the machine that it is attached in");
    MOAT_LET(attached_[address], own->attach(*function, sysfs_root_));
    return {};
}

Result<void> VfioMachine::detach(Bdf address) {
    if (find(address) == nullptr)
        return no_function(address);
    if (find_open(address) != nullptr)
        return fail(ErrorCode::refused, "close the function before detaching it");
    attached_.erase(address);
    return {};
}

Result<SharedMemory> VfioMachine::allocate(ByteCount size, unsigned alignment_lg2) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "cannot allocate 0 bytes");
    constexpr unsigned page_lg2 = 12;
    const ByteCount pages(align_up(std::min(size.value(), bit(62)), page_lg2));
    MOAT_LET(
        platform::Mapping mapping,
        platform::Mapping::create(-1, pages, {.alignment_lg2 = std::max(alignment_lg2, page_lg2)}));
    const std::span<std::byte> bytes = mapping.bytes();
    const auto at = reinterpret_cast<std::uintptr_t>(bytes.data());
    memory_.emplace(at, std::move(mapping));
    return SharedMemory(*this, bytes, PhysicalAddress(at));
}

void VfioMachine::release_shared(PhysicalAddress physical, ByteCount /*size*/) {
    memory_.erase(physical.value());
}

Result<std::uint64_t> VfioMachine::take_faults(FunctionRef<void(const fault::Record&)> each) {
    const auto is_ours = [&](const fault::Source& source) {
        return source.kind() == fault::Source::Kind::pci &&
               std::ranges::any_of(attached_, [&](const auto& attached) {
                   return attached.first.requester() == source.id() &&
                          source.segment().value_or(attached.first.segment()) ==
                              attached.first.segment();
               });
    };
    const auto keep_ours = [&](const fault::LogEvent& decoded) {
        if (decoded.kind == fault::LogEvent::Kind::fault && is_ours(decoded.record.source))
            each(decoded.record);
    };
    return faults_.take(keep_ours);
}

Wait VfioMachine::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    // Busy-waits for a while before sleeping, since most events come soon.
    constexpr std::chrono::microseconds looking{50};
    constexpr std::chrono::nanoseconds longest_sleep = std::chrono::milliseconds(1);
    const std::chrono::nanoseconds began = now();
    std::vector<pollfd> files;
    for (VfioFunction* const function : open_ones_)
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
            for (VfioFunction* const function : open_ones_)
                function->collect_interrupts();
    }
    return Wait::happened;
}

Result<std::span<std::byte>> VfioMachine::bar_memory(Bdf function, unsigned index) {
    VfioFunction* const open_one = find_open(function);
    if (open_one == nullptr)
        return fail(ErrorCode::not_found, "the function is not open",
                    {"requester", function.requester()});
    return open_one->bar_memory(index);
}

} // namespace moat::machine::vfio_host
