// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/driver-api/vfio.rst, "VFIO User API".
#include "vfio_function.hpp"

#include "moat/core/bits.hpp"

#include "kernel_call.hpp"
#include "uapi.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <sys/eventfd.h>

namespace moat::machine::vfio_host {
namespace {

constexpr std::uint64_t all_ones(Width width) {
    return low_bits(8 * static_cast<unsigned>(width));
}

void check_access(std::uint64_t offset, Width width, ByteCount size) {
    const auto bytes = static_cast<std::uint64_t>(width);
    MOAT_CHECK(offset % bytes == 0 && offset < size.value() && bytes <= size.value() - offset,
               "an access lies inside of its registers, at a multiple of its width");
}

/// The device decides when a register is read: volatile, so once per call and in order.
template <class Word>
std::uint64_t load(const std::byte* at) {
    const Word value = *reinterpret_cast<const volatile Word*>(at);
    std::atomic_thread_fence(std::memory_order_acquire);
    return value;
}

template <class Word>
void store(std::byte* at, std::uint64_t value) {
    // Publishes memory before the device learns of it.
    std::atomic_thread_fence(std::memory_order_release);
    *reinterpret_cast<volatile Word*>(at) = static_cast<Word>(value);
}

} // namespace

std::uint64_t RegionByCalls::read(std::uint64_t offset, Width width) {
    check_access(offset, width, size_);
    std::uint64_t value = 0;
    const auto bytes = static_cast<std::size_t>(width);
    if (::pread(device_, &value, bytes, static_cast<off_t>(offset_ + offset)) !=
        static_cast<ssize_t>(bytes))
        return all_ones(width);
    return value;
}

/// Like a bus, it drops a write that fails.
void RegionByCalls::write(std::uint64_t offset, Width width, std::uint64_t value) {
    check_access(offset, width, size_);
    const auto bytes = static_cast<std::size_t>(width);
    [[maybe_unused]] const ssize_t written =
        ::pwrite(device_, &value, bytes, static_cast<off_t>(offset_ + offset));
}

std::uint64_t MappedBar::read(std::uint64_t offset, Width width) {
    check_access(offset, width, size());
    const std::byte* const at = mapping_.bytes().data() + offset;
    switch (width) {
    case Width::bits8:
        return load<std::uint8_t>(at);
    case Width::bits16:
        return load<std::uint16_t>(at);
    case Width::bits32:
        return load<std::uint32_t>(at);
    case Width::bits64:
        return load<std::uint64_t>(at);
    }
    return all_ones(width);
}

void MappedBar::write(std::uint64_t offset, Width width, std::uint64_t value) {
    check_access(offset, width, size());
    std::byte* const at = mapping_.bytes().data() + offset;
    switch (width) {
    case Width::bits8:
        return store<std::uint8_t>(at, value);
    case Width::bits16:
        return store<std::uint16_t>(at, value);
    case Width::bits32:
        return store<std::uint32_t>(at, value);
    case Width::bits64:
        return store<std::uint64_t>(at, value);
    }
}

Result<std::unique_ptr<VfioFunction>> VfioFunction::create(const HostFunction& function,
                                                           platform::FileDescriptor device,
                                                           std::set<VfioFunction*>& open_ones) {
    uapi::DeviceInfo about;
    if (call(device, uapi::device_get_info, &about) < 0)
        return platform::fail_errno("cannot query the function");
    if ((about.flags & uapi::DeviceInfo::is_pci) == 0)
        return fail(ErrorCode::unsupported, "no PCI function");
    uapi::RegionInfo config;
    config.index = uapi::region_config;
    if (call(device, uapi::device_get_region_info, &config) < 0)
        return platform::fail_errno("cannot query the function's configuration space");
    std::unique_ptr<VfioFunction> opened(
        new VfioFunction(function.info, std::move(device), open_ones));
    opened->config_ = std::make_unique<RegionByCalls>(opened->device_.get(), config.offset,
                                                      ByteCount(config.size));
    const auto command = opened->config_->read16(pci::command);
    opened->config_->write16(
        pci::command,
        static_cast<std::uint16_t>((command | pci::command_memory) & ~pci::command_master));
    open_ones.insert(opened.get());
    return opened;
}

VfioFunction::~VfioFunction() {
    set_bus_master(false);
    disable_interrupts();
    open_ones_.erase(this);
}

Result<Registers*> VfioFunction::bar(unsigned index) {
    if (index >= bars_.size() || info_.bars[index].kind == BarKind::absent)
        return fail(ErrorCode::not_found, "the function has no such BAR", {"bar", index});
    if (info_.bars[index].kind == BarKind::ports)
        return fail(ErrorCode::unsupported, "ports are not mapped", {"bar", index});
    if (!bars_[index])
        if (const auto mapped = map_bar(index); !mapped)
            return std::unexpected(mapped.error());
    return bars_[index].get();
}

/// A leaf can map a BAR only at addresses that are multiples of the leaf; BARs are multiples of
/// their own size.
Result<void> VfioFunction::map_bar(unsigned index) {
    uapi::RegionInfo region;
    region.index = index;
    if (call(device_, uapi::device_get_region_info, &region) < 0 || region.size == 0)
        return platform::fail_errno("cannot query the BAR");
    constexpr unsigned largest_leaf_lg2 = 30;
    const unsigned alignment_lg2 = std::min(floor_lg2(region.size), largest_leaf_lg2);
    const ByteCount size(region.size);
    if ((region.flags & uapi::RegionInfo::mappable) != 0) {
        const bool writable = (region.flags & uapi::RegionInfo::writable) != 0;
        auto mapping = platform::Mapping::create(
            device_.get(), size,
            {.offset = region.offset, .alignment_lg2 = alignment_lg2, .writable = writable});
        if (mapping) {
            bars_[index] = std::make_unique<MappedBar>(std::move(*mapping));
            return {};
        }
    }
    bars_[index] = std::make_unique<RegionByCalls>(device_.get(), region.offset, size);
    return {};
}

Result<std::span<std::byte>> VfioFunction::bar_memory(unsigned index) {
    const auto registers = bar(index);
    if (!registers)
        return std::unexpected(registers.error());
    if (const auto* const mapped = dynamic_cast<const MappedBar*>(*registers))
        return mapped->bytes();
    return fail(ErrorCode::unsupported, "VFIO does not map this BAR", {"bar", index});
}

void VfioFunction::set_bus_master(bool allowed) {
    const std::uint16_t command = config_->read16(pci::command);
    config_->write16(pci::command,
                     static_cast<std::uint16_t>(allowed ? command | pci::command_master
                                                        : command & ~pci::command_master));
}

/// MSI-X, otherwise MSI.
Result<unsigned> VfioFunction::enable_interrupts(unsigned wanted) {
    disable_interrupts();
    for (const std::uint32_t kind : {uapi::interrupts_msix, uapi::interrupts_msi}) {
        uapi::InterruptInfo about;
        about.index = kind;
        if (call(device_, uapi::device_get_irq_info, &about) < 0 || about.count == 0 ||
            (about.flags & uapi::InterruptInfo::by_eventfd) == 0)
            continue;
        for (unsigned vector = 0; vector != std::min(wanted, about.count); ++vector) {
            vectors_.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
            if (vectors_.back().get() < 0) {
                vectors_.clear();
                return platform::fail_errno("no more files can be opened: raise ulimit -n",
                                            ErrorCode::limit);
            }
        }
        if (const auto set = set_interrupts(kind); !set) {
            vectors_.clear();
            return std::unexpected(set.error());
        }
        arrived_.assign(vectors_.size(), false);
        return static_cast<unsigned>(vectors_.size());
    }
    return fail(ErrorCode::unsupported, "the function has neither MSI-X nor MSI",
                {"requester", info_.address.requester()});
}

Result<void> VfioFunction::set_interrupts(std::uint32_t kind) {
    uapi::SetInterrupts head;
    head.argument_bytes =
        static_cast<std::uint32_t>(sizeof head + vectors_.size() * sizeof(std::int32_t));
    head.flags = uapi::SetInterrupts::data_eventfd | uapi::SetInterrupts::action_trigger;
    head.index = kind;
    head.count = static_cast<std::uint32_t>(vectors_.size());
    std::vector<std::byte> argument(head.argument_bytes);
    std::memcpy(argument.data(), &head, sizeof head);
    for (std::size_t i = 0; i != vectors_.size(); ++i) {
        const std::int32_t file = vectors_[i].get();
        std::memcpy(argument.data() + sizeof head + i * sizeof file, &file, sizeof file);
    }
    if (call(device_, uapi::device_set_irqs, argument.data()) < 0)
        return platform::fail_errno("cannot enable the function's interrupts");
    interrupt_kind_ = kind;
    return {};
}

void VfioFunction::disable_interrupts() {
    if (interrupt_kind_) {
        uapi::SetInterrupts none;
        none.flags = uapi::SetInterrupts::data_none | uapi::SetInterrupts::action_trigger;
        none.index = *interrupt_kind_;
        (void)call(device_, uapi::device_set_irqs, &none);
    }
    interrupt_kind_.reset();
    vectors_.clear();
    arrived_.clear();
}

void VfioFunction::collect_interrupts() {
    for (std::size_t vector = 0; vector != vectors_.size(); ++vector) {
        std::uint64_t count = 0;
        if (::read(vectors_[vector].get(), &count, sizeof count) == sizeof count)
            arrived_[vector] = true;
    }
}

bool VfioFunction::take_interrupt(unsigned vector) {
    if (vector >= vectors_.size())
        return false;
    collect_interrupts();
    const bool arrived = arrived_[vector];
    arrived_[vector] = false;
    return arrived;
}

Result<void> VfioFunction::reset() {
    set_bus_master(false);
    if (call(device_, uapi::device_reset, nullptr) == 0)
        return {};
    return platform::fail_errno("the function cannot be reset alone",
                                errno == ENOTTY || errno == EINVAL ? ErrorCode::unsupported
                                                                   : ErrorCode::io);
}

} // namespace moat::machine::vfio_host
