// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backend of QEMU: its models of devices behind its VT-d, in a process without a guest. Devices
// reach the part of QEMU's memory that the container allocates.
#include "block.hpp"
#include "machine/qemu/qemu_machine.hpp"
#include "machine_core.hpp"
#include "open.hpp"

#include <array>
#include <map>
#include <string>
#include <utility>

namespace moat::api {

namespace {

using machine::qemu::QemuMachine;

/// Pages of QEMU's memory for small buffers.
struct QemuHost : Host {
    [[nodiscard]] dma::PageSource pages() {
        return {[](void* self, ByteCount size) { return static_cast<QemuHost*>(self)->take(size); },
                [](void* self, const dma::Memory& pages) {
                    static_cast<QemuHost*>(self)->put_back(pages);
                },
                this};
    }

  private:
    [[nodiscard]] dma::Memory take(ByteCount size) try {
        const std::lock_guard lock(mutex);
        auto memory = machine->allocate(size);
        if (!memory)
            return {};
        const auto bytes = memory->bytes();
        taken_.emplace(bytes.data(), std::move(*memory));
        return dma::Memory::own(bytes);
    } catch (const std::bad_alloc&) {

        return {};
    }

    void put_back(const dma::Memory& pages) {
        const std::lock_guard lock(mutex);
        taken_.erase(pages.bytes.data());
    }

    std::map<std::byte*, machine::SharedMemory> taken_;
};

/// A Buffer's memory, and with it the QEMU that it is shared with.
class QemuBlock final : public Block {
  public:
    QemuBlock(Link from, std::shared_ptr<Host> host, machine::SharedMemory memory)
        : Block(from), host_(std::move(host)), memory_(std::move(memory)) {}

    ~QemuBlock() override {
        const std::lock_guard lock(host_->mutex);
        memory_.reset();
    }

  private:
    const std::shared_ptr<Host> host_;
    std::optional<machine::SharedMemory> memory_;
};

/// The same domain for any thread; memory is named by its address in this process.
class QemuDomain final : public machine::Domain {
  public:
    QemuDomain(Host& host, std::span<std::byte> ram, std::unique_ptr<machine::Domain> domain)
        : host_(host), ram_(ram), domain_(std::move(domain)) {}

    ~QemuDomain() override {
        const std::lock_guard lock(host_.mutex);
        domain_.reset();
    }

    [[nodiscard]] const iommu::DomainLimits& limits() const override { return domain_->limits(); }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        const std::uint64_t offset = memory.value() - reinterpret_cast<std::uintptr_t>(ram_.data());
        if (offset >= ram_.size() || size.value() > ram_.size() - offset)
            return fail(ErrorCode::out_of_range,
                        "QEMU's devices reach no such memory: map what the container allocates",
                        {"memory", memory.value()}, {"bytes", size.value()});
        const std::lock_guard lock(host_.mutex);
        return domain_->map(start, size, PhysicalAddress(offset), attributes);
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        const std::lock_guard lock(host_.mutex);
        return domain_->unmap(start, size);
    }

    [[nodiscard]] Result<void> unmap_deferred(Iova start, ByteCount size) override {
        const std::lock_guard lock(host_.mutex);
        return domain_->unmap_deferred(start, size);
    }

    [[nodiscard]] Result<void> invalidate_all() override {
        const std::lock_guard lock(host_.mutex);
        return domain_->invalidate_all();
    }

  private:
    Host& host_;
    const std::span<std::byte> ram_;
    std::unique_ptr<machine::Domain> domain_;
};

/// Registers for any thread. A write is sent at once, since a driver may wait for what it causes in
/// memory.
class QemuRegisters final : public machine::Registers {
  public:
    QemuRegisters(Host& host, machine::Registers& registers)
        : Registers(registers.size()), host_(host), registers_(registers) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, machine::Width width) override {
        const std::lock_guard lock(host_.mutex);
        return registers_.read(offset, width);
    }

    void do_write(std::uint64_t offset, machine::Width width, std::uint64_t value) override {
        const std::lock_guard lock(host_.mutex);
        registers_.write(offset, width, value);
        auto sent = [] { return true; };
        (void)host_.machine->wait_until(sent, {});
    }

    Host& host_;
    machine::Registers& registers_;
};

class QemuDevice final : public MachineDevice {
  public:
    using MachineDevice::MachineDevice;

    [[nodiscard]] Result<machine::Registers*> bar(unsigned index) override {
        const auto found = MachineDevice::bar(index);
        if (!found)
            return found;
        const std::lock_guard lock(host().mutex);
        if (bars_.at(index) == nullptr)
            bars_[index] = std::make_unique<QemuRegisters>(host(), **found);
        return bars_[index].get();
    }

  private:
    std::array<std::unique_ptr<QemuRegisters>, 6> bars_;
};

class QemuCore final : public MachineCore {
  public:
    QemuCore(const ContainerConfig& config, const dma::Options& options,
             const std::shared_ptr<QemuHost>& host, std::unique_ptr<machine::Domain> domain,
             machine::Domain& below)
        : MachineCore(config, options, host, std::move(domain), below) {
        config_.pages = host->pages();
    }

    ~QemuCore() override { end_space(); }

    [[nodiscard]] Backend backend() const override { return Backend::qemu; }

    [[nodiscard]] bool needs_a_device() override { return false; }

    [[nodiscard]] std::shared_ptr<MachineDevice> new_device(machine::Bdf address) override {
        return std::make_shared<QemuDevice>(address, *host());
    }

    [[nodiscard]] Result<Buffer> allocate(std::size_t bytes) override {
        auto memory = [&] {
            const std::lock_guard lock(host()->mutex);
            return host()->machine->allocate(ByteCount(bytes));
        }();
        if (!memory)
            return std::unexpected(memory.error());
        const auto named = memory->bytes().first(bytes);
        return Buffer(BlockShare(new QemuBlock(link(), host(), std::move(*memory))), named);
    }
};

/// The error, with the first line that QEMU said.
[[nodiscard]] std::unexpected<Error> not_started(const Error& error, const std::string& words,
                                                 const std::string& program) {
    if (error.code() == ErrorCode::not_found)
        return fail(ErrorCode::not_found, keep_sentence(program + " is not in PATH: install QEMU",
                                                        "QEMU is not in PATH: install it"));
    if (words.empty())
        return std::unexpected(error);
    return fail(error.code(),
                keep_sentence("QEMU did not start: " + words.substr(0, words.find('\n')),
                              "QEMU did not start"));
}

} // namespace

Result<std::unique_ptr<Core>> open_qemu(const ContainerConfig& config,
                                        const dma::Options& options) {
    std::string words;
    auto started = QemuMachine::start({.program = config.qemu.program,
                                       .devices = config.qemu.devices,
                                       .disks = config.qemu.disks,
                                       .ram = config.qemu.ram,
                                       .words = &words});
    if (!started)
        return not_started(started.error(), words, config.qemu.program);
    const std::span<std::byte> ram = (*started)->ram();
    MOAT_LET(auto made, (*started)->create_domain());
    machine::Domain& below = *made;
    auto host = std::make_shared<QemuHost>();
    host->machine = std::move(*started);
    auto domain = std::make_unique<QemuDomain>(*host, ram, std::move(made));
    auto core = std::make_unique<QemuCore>(config, options, host, std::move(domain), below);
    MOAT_TRY(core->begin());
    return core;
}

} // namespace moat::api
