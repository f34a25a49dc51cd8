// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/vfio_user/vfio_user_machine.hpp"

#include "platform/file_descriptor.hpp"

#include <algorithm>
#include <sched.h>
#include <set>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace moat::machine::vfio_user {

namespace {

using namespace std::chrono_literals;

/// The largest map that libvfio-user accepts.
constexpr std::uint64_t window_bytes = std::uint64_t{1} << 43;

/// A driver's accesses past a smaller region read as all ones.
constexpr std::uint64_t least_bar_bytes = std::uint64_t{1} << 20;

class RemoteBar final : public Registers {
  public:
    RemoteBar(RemoteDevice& remote, unsigned index, ByteCount size)
        : Registers(ByteCount(std::max(size.value(), least_bar_bytes))), remote_(remote),
          index_(index) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        return remote_.read(index_, offset, width);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        remote_.write(index_, offset, width, value);
    }

    RemoteDevice& remote_;
    const unsigned index_;
};

/// The server's configuration space; the IOMMU's side also learns of bus mastering.
class RemoteConfig final : public Registers {
  public:
    RemoteConfig(RemoteDevice& remote, Registers& inner)
        : Registers(ByteCount(256)), remote_(remote), inner_(inner) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        return remote_.read(RemoteDevice::config_region, offset, width);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        // It may access memory before it has answered.
        if (offset == pci::command)
            inner_.write16(pci::command, static_cast<std::uint16_t>(value));
        remote_.write(RemoteDevice::config_region, offset, width, value);
    }

    RemoteDevice& remote_;
    Registers& inner_;
};

/// `inner` is the soft machine's, and has its place on the bus.
class RemoteFunction final : public Function {
  public:
    RemoteFunction(RemoteDevice& remote, std::unique_ptr<Function> inner)
        : Function(inner->info()), remote_(remote), inner_(std::move(inner)),
          config_(remote, inner_->config()) {
        enable_memory();
    }

    ~RemoteFunction() override {
        set_bus_master(false);
        if (!eventfds_.empty())
            (void)remote_.set_interrupts({});
    }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        MOAT_LET(const unsigned count, inner_->enable_interrupts(wanted));
        std::vector<platform::FileDescriptor> owned;
        std::vector<int> numbers;
        for (unsigned vector = 0; vector != count; ++vector) {
            owned.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
            if (owned.back().get() < 0)
                return platform::fail_errno("cannot create an eventfd");
            numbers.push_back(owned.back().get());
        }
        MOAT_TRY(remote_.set_interrupts(numbers));
        eventfds_ = std::move(owned);
        return count;
    }

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        std::uint64_t count = 0;
        return vector < eventfds_.size() &&
               ::read(eventfds_[vector].get(), &count, sizeof count) == sizeof count;
    }

    [[nodiscard]] Result<void> reset() override {
        MOAT_TRY(inner_->reset());
        enable_memory();
        return {};
    }

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
        return std::make_unique<RemoteBar>(remote_, index, info().bars[index].size);
    }

    void enable_memory() { config_.write16(pci::command, pci::command_memory); }

    RemoteDevice& remote_;
    std::unique_ptr<Function> inner_;
    RemoteConfig config_;
    std::vector<platform::FileDescriptor> eventfds_;
};

/// A domain of the soft machine whose addresses all lie in the window.
class WindowDomain : public ForwardingDomain<Domain> {
  public:
    explicit WindowDomain(std::unique_ptr<Domain> inner)
        : ForwardingDomain(*inner), owned_(std::move(inner)), limits_(owned_->limits()) {
        const Iova last(std::min(limits_.aperture.last().value(), window_bytes - 1));
        limits_.aperture = IovaRange::inclusive(limits_.aperture.start(), last);
    }

    [[nodiscard]] const iommu::DomainLimits& limits() const override { return limits_; }

  private:
    std::unique_ptr<Domain> owned_;
    iommu::DomainLimits limits_;
};

/// Also maps each page at the server, with the descriptor of its memory.
class SharedDomain final : public WindowDomain {
  public:
    SharedDomain(std::unique_ptr<Domain> inner, RemoteDevice& remote, const soft::SoftMachine& soft)
        : WindowDomain(std::move(inner)), remote_(remote), soft_(soft) {}

    ~SharedDomain() override {
        while (!pages_.empty())
            (void)unmap_at_server(IovaRange(Iova(*pages_.begin()), page));
    }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        MOAT_TRY(WindowDomain::map(start, size, memory, attributes));
        const std::uint32_t flags = (has(attributes, Attributes::read) ? map_readable : 0U) |
                                    (has(attributes, Attributes::write) ? map_writable : 0U);
        for (std::uint64_t at = 0; at != size.value(); at += page.value()) {
            const auto [file, offset] = soft_.file_of(PhysicalAddress(memory.value() + at));
            const DmaMap there = {.flags = flags,
                                  .offset = offset,
                                  .address = start.value() + at,
                                  .size = page.value()};
            if (const auto mapped = remote_.map(there, file); !mapped) {
                (void)unmap(start, size);
                return mapped;
            }
            pages_.insert(there.address);
        }
        return {};
    }

    /// At the server first, which must not reach memory that is unmapped here.
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        const auto there = unmap_at_server(IovaRange(start, size));
        MOAT_TRY(WindowDomain::unmap(start, size));
        return there;
    }

    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) override {
        return unmap(start, size);
    }

  private:
    static constexpr ByteCount page{4096};

    Result<void> unmap_at_server(const IovaRange& range) {
        Result<void> result;
        for (auto each = pages_.lower_bound(range.start().value());
             each != pages_.end() && *each <= range.last().value(); each = pages_.erase(each))
            if (const auto done = remote_.unmap({.address = *each, .size = page.value()}); !done)
                result = done;
        return result;
    }

    RemoteDevice& remote_;
    const soft::SoftMachine& soft_;
    std::set<std::uint64_t> pages_; ///< mapped at the server
};

} // namespace

VfioUserMachine::VfioUserMachine(std::unique_ptr<RemoteDevice> remote, Dma dma)
    : dma_(dma), remote_(std::move(remote)),
      soft_(dma == Dma::shared ? soft::Backing::files : soft::Backing::anonymous) {}

Result<std::unique_ptr<VfioUserMachine>> VfioUserMachine::connect(const ServerOptions& options) {
    MOAT_LET(auto remote, RemoteDevice::connect(options.socket, options.patience));
    std::unique_ptr<VfioUserMachine> machine(new VfioUserMachine(std::move(remote), options.dma));
    MOAT_TRY(machine->soft_.add(address, *machine->remote_));
    machine->remote_->connect_bus(machine->soft_.bus(address));
    const auto known = machine->soft_.functions();
    machine->infos_.assign(known.begin(), known.end());
    if (options.dma == Dma::message)
        MOAT_TRY(
            machine->remote_->map({.flags = map_readable | map_writable, .size = window_bytes}));
    return machine;
}

Result<std::unique_ptr<Function>> VfioUserMachine::open(Bdf function) {
    MOAT_TRY(health());
    MOAT_LET(auto inner, soft_.open(function));
    return std::make_unique<RemoteFunction>(*remote_, std::move(inner));
}

Result<std::unique_ptr<Domain>> VfioUserMachine::create_domain() {
    MOAT_LET(auto inner, soft_.create_domain());
    if (dma_ == Dma::shared)
        return std::make_unique<SharedDomain>(std::move(inner), *remote_, soft_);
    return std::make_unique<WindowDomain>(std::move(inner));
}

Result<void> VfioUserMachine::attach(Bdf function, Domain& domain) {
    auto* const own = dynamic_cast<WindowDomain*>(&domain);
    MOAT_CHECK(own != nullptr, "a domain is of the machine that it is attached in");
    return soft_.attach(function, own->inner());
}

Result<void> VfioUserMachine::detach(Bdf function) {
    return soft_.detach(function);
}

Result<SharedMemory> VfioUserMachine::allocate(ByteCount size, unsigned alignment_lg2) {
    return soft_.allocate(size, alignment_lg2);
}

Result<std::uint64_t> VfioUserMachine::take_faults(FunctionRef<void(const fault::Record&)> each) {
    MOAT_LET(const std::uint64_t lost, soft_.take_faults(each));
    MOAT_TRY(health());
    return lost;
}

Wait VfioUserMachine::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    constexpr auto soon = 100us;
    const auto begin = now();
    auto latest = begin; // when it last served, or slept
    while (!happened()) {
        const auto left = longest - (now() - begin);
        if (left <= 0ns || !health())
            return Wait::timed_out;
        // An interrupt arrives beside the socket, most often soon after a message.
        const bool has_served = remote_->step(soft_.bus(address));
        if (!has_served && now() - latest < soon) {
            ::sched_yield();
            continue;
        }
        if (!has_served)
            remote_->serve(std::min(1ms, std::chrono::ceil<std::chrono::milliseconds>(left)));
        latest = now();
    }
    return Wait::happened;
}

Result<void> VfioUserMachine::health() const {
    if (remote_->failure())
        return std::unexpected(*remote_->failure());
    return {};
}

} // namespace moat::machine::vfio_user
