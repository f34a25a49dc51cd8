// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/driver-api/vfio.rst, "VFIO User API".
#include "vfio_function.hpp"

#include "moat/core/bits.hpp"

#include "platform/memory_file.hpp"
#include "platform/try.hpp"
#include "uapi.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <sys/eventfd.h>

namespace moat::machine::vfio_host {
namespace {

/// Return: use(word), whose type has the width.
template <class Use>
std::uint64_t with_word(Width width, const Use& use) {
    switch (width) {
    case Width::bits8:
        return use(std::uint8_t{});
    case Width::bits16:
        return use(std::uint16_t{});
    case Width::bits32:
        return use(std::uint32_t{});
    case Width::bits64:
        break;
    }
    return use(std::uint64_t{});
}

/// A region accessed by calls: configuration space, and BARs that cannot be mapped.
class RegionByCalls final : public Registers {
  public:
    RegionByCalls(int device, std::uint64_t offset, std::uint64_t size)
        : Registers(ByteCount(size)), device_(device), offset_(offset) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        std::uint64_t value = 0;
        const auto bytes = static_cast<std::size_t>(width);
        const ssize_t read = ::pread(device_, &value, bytes, static_cast<off_t>(offset_ + offset));
        return read == static_cast<ssize_t>(bytes) ? value : all_ones(width);
    }

    /// Like a bus, it drops a write that fails.
    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        [[maybe_unused]] const ssize_t written = ::pwrite(
            device_, &value, static_cast<std::size_t>(width), static_cast<off_t>(offset_ + offset));
    }

    const int device_;
    const std::uint64_t offset_;
};

class MappedBar final : public Registers {
  public:
    explicit MappedBar(platform::Mapping mapping)
        : Registers(ByteCount(mapping.bytes().size())), mapping_(std::move(mapping)) {}

    [[nodiscard]] std::span<std::byte> bytes() const { return mapping_.bytes(); }

  private:
    /// The device decides when a register is read: volatile, so once per call and in order.
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        return with_word(width, [&]<class Word>(Word) -> std::uint64_t {
            const Word value = *reinterpret_cast<const volatile Word*>(bytes().data() + offset);
            std::atomic_thread_fence(std::memory_order_acquire);
            return value;
        });
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        // Publishes memory before the device learns of it.
        std::atomic_thread_fence(std::memory_order_release);
        with_word(width, [&]<class Word>(Word) -> std::uint64_t {
            *reinterpret_cast<volatile Word*>(bytes().data() + offset) = static_cast<Word>(value);
            return 0;
        });
    }

    platform::Mapping mapping_;
};

} // namespace

Result<std::unique_ptr<VfioFunction>> VfioFunction::create(const HostFunction& function,
                                                           platform::FileDescriptor device,
                                                           std::set<VfioFunction*>& open_ones) {
    vfio_device_info about{};
    about.argsz = sizeof about;
    if (call(device, VFIO_DEVICE_GET_INFO, &about) < 0)
        return platform::fail_errno("cannot query the function");
    if ((about.flags & VFIO_DEVICE_FLAGS_PCI) == 0)
        return fail(ErrorCode::unsupported, "no PCI function");
    vfio_region_info config{};
    config.argsz = sizeof config;
    config.index = VFIO_PCI_CONFIG_REGION_INDEX;
    if (call(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
        return platform::fail_errno("cannot query the function's configuration space");
    std::unique_ptr<VfioFunction> opened(
        new VfioFunction(function.info, std::move(device), open_ones));
    opened->config_ =
        std::make_unique<RegionByCalls>(opened->device_.get(), config.offset, config.size);
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

/// A leaf can map a BAR only at addresses that are multiples of the leaf; BARs are multiples of
/// their own size.
Result<std::unique_ptr<Registers>> VfioFunction::open_bar(unsigned index) {
    vfio_region_info region{};
    region.argsz = sizeof region;
    region.index = index;
    if (call(device_, VFIO_DEVICE_GET_REGION_INFO, &region) < 0 || region.size == 0)
        return platform::fail_errno("cannot query the BAR");
    constexpr unsigned largest_leaf_lg2 = 30;
    const unsigned alignment_lg2 = std::min(floor_lg2(region.size), largest_leaf_lg2);
    if ((region.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0) {
        const bool writable = (region.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0;
        auto mapping = platform::Mapping::create(
            device_.get(), ByteCount(region.size),
            {.offset = region.offset, .alignment_lg2 = alignment_lg2, .writable = writable});
        if (mapping)
            return std::make_unique<MappedBar>(std::move(*mapping));
    }
    return std::make_unique<RegionByCalls>(device_.get(), region.offset, region.size);
}

Result<std::span<std::byte>> VfioFunction::bar_memory(unsigned index) {
    MOAT_LET(const Registers* const registers, bar(index));
    if (const auto* const mapped = dynamic_cast<const MappedBar*>(registers))
        return mapped->bytes();
    return fail(ErrorCode::unsupported, "VFIO does not map this BAR", {"bar", index});
}

/// MSI-X, otherwise MSI.
Result<unsigned> VfioFunction::enable_interrupts(unsigned wanted) {
    disable_interrupts();
    for (const std::uint32_t kind : {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX}) {
        vfio_irq_info about{.argsz = sizeof about, .flags = 0, .index = kind, .count = 0};
        if (call(device_, VFIO_DEVICE_GET_IRQ_INFO, &about) < 0 || about.count == 0 ||
            (about.flags & VFIO_IRQ_INFO_EVENTFD) == 0)
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
                {"requester", info().address.requester()});
}

Result<void> VfioFunction::set_interrupts(std::uint32_t kind) {
    vfio_irq_set head{};
    head.argsz = static_cast<std::uint32_t>(sizeof head + vectors_.size() * sizeof(std::int32_t));
    head.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    head.index = kind;
    head.count = static_cast<std::uint32_t>(vectors_.size());
    std::vector<std::byte> argument(head.argsz);
    std::memcpy(argument.data(), &head, sizeof head);
    for (std::size_t i = 0; i != vectors_.size(); ++i) {
        const std::int32_t file = vectors_[i].get();
        std::memcpy(argument.data() + sizeof head + i * sizeof file, &file, sizeof file);
    }
    if (call(device_, VFIO_DEVICE_SET_IRQS, argument.data()) < 0)
        return platform::fail_errno("cannot enable the function's interrupts");
    interrupt_kind_ = kind;
    return {};
}

void VfioFunction::disable_interrupts() {
    if (interrupt_kind_) {
        vfio_irq_set none{};
        none.argsz = sizeof none;
        none.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        none.index = *interrupt_kind_;
        (void)call(device_, VFIO_DEVICE_SET_IRQS, &none);
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
    if (call(device_, VFIO_DEVICE_RESET, nullptr) == 0)
        return {};
    return platform::fail_errno("the function cannot be reset alone",
                                errno == ENOTTY || errno == EINVAL ? ErrorCode::unsupported
                                                                   : ErrorCode::io);
}

} // namespace moat::machine::vfio_host
