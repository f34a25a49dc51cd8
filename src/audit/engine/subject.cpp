// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/subject.hpp"

#include "moat/core/check.hpp"

#include "machine/soft/edu.hpp"
#include "machine/soft/nvme.hpp"
#include "machine/soft/soft_machine.hpp"
#include "machine/vfio_host/vfio_machine.hpp"
#include "wrong.hpp"

#include <algorithm>
#include <vector>

namespace moat::audit {

namespace {

using namespace std::chrono_literals;

using machine::Bdf;

constexpr std::array<Kind, 10> all_kinds = {
    {{"soft", "nvme", "an NVM Express controller in this process", true, Bdf(0, 5, 0)},
     {"soft", "edu", "a teaching device with one DMA engine in this process", true, Bdf(0, 4, 0)},
     {"qemu", "nvme", "QEMU's NVM Express controller", true, Bdf(0, 5, 0)},
     {"qemu", "virtio-blk", "QEMU's virtio block device with iommu_platform=on", true,
      Bdf(0, 6, 0)},
     {"qemu", "ahci", "QEMU's AHCI controller with a disk", true, Bdf(0, 7, 0)},
     {"qemu", "e1000e", "QEMU's Intel 82574 network controller, looped back", true, Bdf(0, 8, 0)},
     {"qemu", "edu", "QEMU's teaching device; 100 ms per operation", true, Bdf(0, 4, 0)},
     {"qemu", "virtio-blk-direct", "QEMU's virtio block device without iommu_platform", false,
      Bdf(0, 9, 0)},
     {"vfio", "nvme",
      "the first NVM Express controller bound to vfio-pci; the audit writes to its disk", false},
     {"vfio", "edu", "the first of QEMU's teaching devices bound to vfio-pci"}}};

constexpr ByteCount disk_bytes{std::uint64_t{4} << 20};

machine::qemu::QemuOptions qemu_options(std::string_view name) {
    machine::qemu::QemuOptions options;
    const std::string virtio = "virtio-blk-pci,drive=disk0,serial=moat,disable-legacy=on,addr=";
    if (name == "edu")
        options.devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"};
    else if (name == "nvme")
        options.devices = {"nvme,drive=disk0,serial=moat,addr=5,mdts=0"};
    else if (name == "virtio-blk")
        options.devices = {virtio + "6,iommu_platform=on"};
    else if (name == "virtio-blk-direct")
        options.devices = {virtio + "9"};
    else if (name == "ahci")
        options.devices = {"ahci,id=ahci,addr=7", "ide-hd,drive=disk0,bus=ahci.0"};
    else
        options.devices = {"e1000e,addr=8"};
    if (name != "edu" && name != "e1000e")
        options.disks = {disk_bytes}; // in memory
    return options;
}

/// A machine as the audit sees it: wrapped only if something is to be wrong.
class Injector {
  public:
    Injector(machine::Machine& machine, const Wrong& wrong) : machine_(machine), wrong_(wrong) {
        if (wrong.what != Injection::none)
            wrapped_.emplace(machine, wrong);
    }

    [[nodiscard]] machine::Machine& machine() { return wrapped_ ? *wrapped_ : machine_; }

    [[nodiscard]] std::uint64_t wronged() const { return wrapped_ ? wrapped_->wronged() : 0; }

    /// `before_each`: see WrongDriver.
    [[nodiscard]] AuditOptions options(const std::function<void(Injection)>& before_each = {}) {
        AuditOptions options;
        if (wrapped_)
            options.probe =
                [this, before_each](machine::Machine&, machine::Function& function,
                                    BufferSource& buffers) -> Result<std::unique_ptr<Driver>> {
                auto driver = audit::probe(*wrapped_, function, buffers);
                if (!driver)
                    return driver;
                return std::make_unique<WrongDriver>(std::move(*driver), *wrapped_, wrong_,
                                                     before_each);
            };
        return options;
    }

  private:
    machine::Machine& machine_;
    const Wrong wrong_;
    std::optional<WrongMachine> wrapped_;
};

/// What a soft device does wrong; its driver does the rest.
[[nodiscard]] machine::soft::Misdeed misdeed_of(Injection what) {
    using machine::soft::Misdeed;
    constexpr std::array<Misdeed, injection_names.size()> misdeeds = {
        Misdeed::none,          Misdeed::overrun,
        Misdeed::underrun,      Misdeed::write_after_completion,
        Misdeed::stale_address, Misdeed::read_only_violated,
        Misdeed::wrong_length,  Misdeed::none,
        Misdeed::stale_address};
    return misdeeds[static_cast<std::size_t>(what)];
}

template <class Model>
class SoftSubject final : public Subject {
  public:
    SoftSubject(Bdf address, const Wrong& wrong) : wrong_(wrong) {
        MOAT_CHECK(soft_.add(address, model_).has_value(), "the bus is empty");
    }

    [[nodiscard]] machine::Machine& machine() override { return injector_.machine(); }

    [[nodiscard]] std::uint64_t wronged() const override {
        return injector_.wronged() + model_.misdeeds();
    }

    [[nodiscard]] AuditOptions options() override {
        AuditOptions options = injector_.options(
            [this](Injection what) { model_.misbehave({misdeed_of(what), wrong_.bytes}); });
        options.settle = 1ms;
        return options;
    }

  private:
    const Wrong wrong_;
    Model model_;
    machine::soft::SoftMachine soft_;
    Injector injector_{soft_, wrong_};
};

class QemuSubject final : public Subject {
  public:
    QemuSubject(std::unique_ptr<machine::qemu::QemuMachine> qemu, const Wrong& wrong)
        : qemu_(std::move(qemu)), injector_(*qemu_, wrong) {}

    [[nodiscard]] machine::Machine& machine() override { return injector_.machine(); }

    [[nodiscard]] std::uint64_t wronged() const override { return injector_.wronged(); }

    [[nodiscard]] AuditOptions options() override {
        AuditOptions options = injector_.options();
        options.decoys = Decoys::at_physical_addresses;
        options.round_trips = [this] { return qemu_->qtest().round_trips(); };
        return options;
    }

    [[nodiscard]] machine::qemu::QemuMachine* qemu() override { return qemu_.get(); }

  private:
    std::unique_ptr<machine::qemu::QemuMachine> qemu_;
    Injector injector_;
};

[[nodiscard]] bool is_of(const Kind& kind, const machine::FunctionInfo& function) {
    constexpr std::uint32_t nvm_express = 0x010802;
    constexpr std::uint16_t edu_device = 0x11e8;
    return kind.name == "nvme" ? function.class_code == nvm_express : function.device == edu_device;
}

/// A device of this host. Only its driver can do wrong.
class VfioSubject final : public Subject {
  public:
    VfioSubject(std::unique_ptr<machine::vfio_host::VfioMachine> vfio, machine::Bdf address,
                const Wrong& wrong)
        : vfio_(std::move(vfio)), address_(address), injector_(*vfio_, wrong) {}

    [[nodiscard]] machine::Machine& machine() override { return injector_.machine(); }

    [[nodiscard]] std::uint64_t wronged() const override { return injector_.wronged(); }

    [[nodiscard]] machine::Bdf address() override { return address_; }

    [[nodiscard]] AuditOptions options() override {
        AuditOptions options = injector_.options();
        options.settle = 2ms; // the kernel reports a fault some tenths of a millisecond later
        return options;
    }

    [[nodiscard]] static Result<std::unique_ptr<Subject>> start(const Kind& kind,
                                                                const Wrong& wrong) {
        auto vfio = machine::vfio_host::VfioMachine::open();
        if (!vfio)
            return std::unexpected(vfio.error());
        for (const machine::FunctionInfo& each : (*vfio)->functions())
            if (is_of(kind, each) && each.address == kind.address.value_or(each.address))
                return std::make_unique<VfioSubject>(std::move(*vfio), each.address, wrong);
        return fail(ErrorCode::not_found, "vfio-pci has no such device (moat devices, moat bind)");
    }

  private:
    std::unique_ptr<machine::vfio_host::VfioMachine> vfio_;
    const machine::Bdf address_;
    Injector injector_;
};

} // namespace

std::span<const Kind> kinds() {
    return all_kinds;
}

Result<Kind> vfio_kind_at(Bdf address, std::string& words) {
    const auto vfio = machine::vfio_host::VfioMachine::open();
    if (!vfio)
        return std::unexpected(vfio.error());
    words = "bound to vfio-pci:\n";
    for (const machine::FunctionInfo& function : (*vfio)->functions()) {
        words += "  " + to_string(function.address) + '\n';
        if (function.address != address)
            continue;
        for (Kind each : all_kinds)
            if (each.machine == "vfio" && is_of(each, function)) {
                each.address = address;
                return each;
            }
        return fail(ErrorCode::unsupported, "there is no driver for this device");
    }
    return fail(ErrorCode::not_found, "vfio-pci has no such device (moat devices, moat bind)");
}

Result<std::unique_ptr<Subject>> Subject::start(const Kind& kind, const Wrong& wrong,
                                                std::string* words) {
    if (kind.machine == "soft") {
        if (kind.name == "nvme")
            return std::make_unique<SoftSubject<machine::soft::Nvme>>(*kind.address, wrong);
        return std::make_unique<SoftSubject<machine::soft::Edu>>(*kind.address, wrong);
    }
    if (kind.machine == "vfio")
        return VfioSubject::start(kind, wrong);
    auto options = qemu_options(kind.name);
    options.words = words;
    auto qemu = machine::qemu::QemuMachine::start(options);
    if (!qemu) {
        if (qemu.error().code() == ErrorCode::not_found && words != nullptr && words->empty())
            *words = options.program + " is not in PATH; install QEMU for x86-64\n";
        return std::unexpected(qemu.error());
    }
    if ((*qemu)->functions().empty())
        return fail(ErrorCode::not_found, "QEMU has no such device");
    return std::make_unique<QemuSubject>(std::move(*qemu), wrong);
}

} // namespace moat::audit
