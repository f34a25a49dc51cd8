// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The machine, and its functions: regions, interrupts by eventfd, reset.
// Source: Linux, Documentation/driver-api/vfio.rst, "VFIO User API".
#include "machine/vfio_host/vfio_machine.hpp"

#include "moat/core/bits.hpp"

#include "uapi.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <poll.h>
#include <set>
#include <span>
#include <sys/eventfd.h>
#include <time.h>
#include <vector>

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

class VfioFunction final : public Function {
  public:
    /// The function removes itself from `open_ones` when it ends.
    static Result<std::unique_ptr<VfioFunction>> create(const HostFunction& function,
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

    ~VfioFunction() override {
        set_bus_master(false);
        disable_interrupts();
        open_ones_.erase(this);
    }

    [[nodiscard]] Registers& config() override { return *config_; }

    /// MSI-X, otherwise MSI.
    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
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

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        if (vector >= vectors_.size())
            return false;
        collect_interrupts();
        const bool arrived = arrived_[vector];
        arrived_[vector] = false;
        return arrived;
    }

    [[nodiscard]] Result<void> reset() override {
        set_bus_master(false);
        if (call(device_, VFIO_DEVICE_RESET, nullptr) == 0)
            return {};
        return platform::fail_errno("the function cannot be reset alone",
                                    errno == ENOTTY || errno == EINVAL ? ErrorCode::unsupported
                                                                       : ErrorCode::io);
    }

    /// A memory BAR mapped in this process. Errors: bar's; unsupported (it cannot be mapped).
    [[nodiscard]] Result<std::span<std::byte>> bar_memory(unsigned index) {
        MOAT_LET(const Registers* const registers, bar(index));
        if (const auto* const mapped = dynamic_cast<const MappedBar*>(registers))
            return mapped->bytes();
        return fail(ErrorCode::unsupported, "VFIO does not map this BAR", {"bar", index});
    }

    /// Each file becomes readable with its interrupt; -1 without interrupts.
    [[nodiscard]] std::span<const platform::FileDescriptor> interrupt_files() const {
        return vectors_;
    }

    /// Records pending interrupts for take_interrupt and makes the files unreadable again.
    void collect_interrupts() {
        for (std::size_t vector = 0; vector != vectors_.size(); ++vector) {
            std::uint64_t count = 0;
            if (::read(vectors_[vector].get(), &count, sizeof count) == sizeof count)
                arrived_[vector] = true;
        }
    }

  private:
    VfioFunction(const FunctionInfo& info, platform::FileDescriptor device,
                 std::set<VfioFunction*>& open_ones)
        : Function(info), device_(std::move(device)), open_ones_(open_ones) {}

    /// A leaf can map a BAR only at addresses that are multiples of the leaf; BARs are multiples of
    /// their own size.
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
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

    Result<void> set_interrupts(std::uint32_t kind) {
        vfio_irq_set head{};
        head.argsz =
            static_cast<std::uint32_t>(sizeof head + vectors_.size() * sizeof(std::int32_t));
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

    void disable_interrupts() {
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

    platform::FileDescriptor device_;
    std::set<VfioFunction*>& open_ones_;
    std::unique_ptr<Registers> config_;
    std::vector<platform::FileDescriptor> vectors_;
    std::vector<bool> arrived_;
    std::optional<std::uint32_t> interrupt_kind_;
};

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
