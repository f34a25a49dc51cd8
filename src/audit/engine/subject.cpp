// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The devices by name, and Injector: makes an audit's domain and driver do wrong, by wrappers of
// the real ones.
#include "audit/subject.hpp"

#include "machine/qemu/qemu_machine.hpp"
#include "machine/soft/edu.hpp"
#include "machine/soft/nvme.hpp"
#include "machine/soft/soft_machine.hpp"
#include "machine/vfio_host/vfio_machine.hpp"
#include "machine/vfio_user/vfio_user_machine.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <vector>

namespace moat::audit {

class Injector {
  public:
    /// `misbehave` is called before each operation and may make the device misbehave; empty if only
    /// the driver can do wrong.
    Injector(const Wrong& wrong, std::function<void(Injection)> misbehave)
        : wrong_(wrong), misbehave_(std::move(misbehave)) {}

    /// Sets the hooks of an audit of `machine`, which this outlives. Nothing without an injection.
    void apply_to(AuditOptions& options, const machine::Machine& machine);

    /// How many errors were injected, except those that the device committed.
    [[nodiscard]] std::uint64_t injected() const { return injected_; }

  private:
    class WrongDomain;
    class WrongDriver;

    const Wrong wrong_;
    const std::function<void(Injection)> misbehave_;
    std::uint64_t injected_ = 0;
    WrongDomain* domain_ = nullptr;
    std::optional<Iova> doomed_; ///< an address that the next wait begins by unmapping
};

/// Unmaps too early, or without invalidation.
class Injector::WrongDomain final : public machine::ForwardingDomain<machine::Domain> {
  public:
    /// `keeps`: the IOMMU invalidates at once, so leaves stay mapped for a while, as in a cache.
    WrongDomain(Injector& injector, machine::Domain& inner, bool keeps)
        : ForwardingDomain(inner), injector_(injector), keeps_(keeps) {
        injector_.domain_ = this;
    }

    ~WrongDomain() override { injector_.domain_ = nullptr; }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        if (injector_.wrong_.what == Injection::late)
            mapped_[start] = size;
        MOAT_TRY(unmap_kept(IovaRange(start, size)));
        return inner().map(start, size, memory, attributes);
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        if (injector_.wrong_.what == Injection::late)
            mapped_.erase(start);
        if (injector_.wrong_.what != Injection::no_invalidate)
            return inner().unmap(start, size);
        if (!keeps_)
            return inner().unmap_deferred(start, size);
        kept_.push_back(IovaRange(start, size));
        return kept_.size() <= most_kept ? Result<void>() : unmap_kept(kept_.front());
    }

    /// Posted writes arrive before the unmap, and the device acts on them after it.
    void unmap_doomed() {
        const auto doomed = std::exchange(injector_.doomed_, std::nullopt);
        const auto after = doomed ? mapped_.upper_bound(*doomed) : mapped_.begin();
        if (after == mapped_.begin())
            return;
        const auto [start, size] = *std::prev(after);
        if (doomed->value() - start.value() < size.value() && inner().unmap(start, size))
            ++injector_.injected_;
    }

  private:
    static constexpr std::size_t most_kept = 64;

    Result<void> unmap_kept(IovaRange where) {
        for (std::size_t at = 0; at != kept_.size();) {
            const IovaRange each = kept_[at];
            if (!each.overlaps(where)) {
                ++at;
                continue;
            }
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(at));
            MOAT_TRY(inner().unmap(each.start(), each.size()));
        }
        return {};
    }

    Injector& injector_;
    const bool keeps_;
    std::vector<IovaRange> kept_;
    std::map<Iova, ByteCount> mapped_;
};

/// Changes requests before they reach the device's driver.
class Injector::WrongDriver final : public Driver {
  public:
    WrongDriver(Injector& injector, std::unique_ptr<Driver> inner)
        : Driver(inner->name(), inner->operations(), inner->medium()), injector_(injector),
          inner_(std::move(inner)) {}

    ~WrongDriver() override {
        if (injector_.misbehave_)
            injector_.misbehave_(Injection::none);
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override {
        return inner_->lists_for(changed(request));
    }

    [[nodiscard]] Result<bool> delete_queues() override { return inner_->delete_queues(); }

  private:
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;
    [[nodiscard]] Request changed(Request request) const;

    /// At the end of a medium, the longer request begins earlier.
    void lengthen(Request& request, ByteCount bytes) const {
        const std::uint64_t unit = medium().unit.value();
        const ByteCount length = request.length + bytes;
        if (operations()[request.operation].content != Content::none) {
            const std::uint64_t needed = (length.value() + unit - 1) / unit;
            const std::uint64_t all = medium().size.value() / unit;
            if (needed > all)
                return;
            request.position = std::min(request.position, all - needed);
        }
        request.length = length;
    }

    /// Whether the medium, if it is used, has `length` from the request's position on.
    [[nodiscard]] bool is_on_medium(const Request& request, ByteCount length) const {
        const ByteCount start(request.position * medium().unit.value());
        return operations()[request.operation].content == Content::none ||
               length <= medium().size - start;
    }

    Injector& injector_;
    std::unique_ptr<Driver> inner_;
    Iova previous_;
};

/// As far as the operation supports it.
Request Injector::WrongDriver::changed(Request request) const {
    const Wrong& wrong = injector_.wrong_;
    if (injector_.misbehave_ && wrong.what != Injection::short_buffer)
        return request; // the device does wrong
    if (request.length == ByteCount(0))
        return request;
    const auto all = operations();
    const Operation& operation = all[request.operation];
    const std::uint64_t granule = operation.granule.value();
    const ByteCount bytes((wrong.bytes + granule - 1) / granule * granule);
    switch (wrong.what) {
    case Injection::underrun:
        request.data = Iova(request.data.value() - std::min(request.data.value(), bytes.value()));
        [[fallthrough]];
    case Injection::overrun:
    case Injection::short_buffer:
        if (bytes <= operation.longest && request.length <= operation.longest - bytes)
            lengthen(request, bytes);
        break;
    case Injection::stale:
    case Injection::no_invalidate:
        request.data = previous_ != Iova() ? previous_ : request.data;
        break;
    case Injection::read_only: {
        const auto opposite = std::ranges::find_if(all, [&](const Operation& each) {
            return each.direction != operation.direction && each.has_length(request.length);
        });
        if (operation.direction != Direction::from_device && opposite != all.end())
            request.operation = static_cast<unsigned>(opposite - all.begin());
        break;
    }
    case Injection::short_transfer:
        if (request.length > bytes && request.length - bytes >= operation.shortest)
            request.length = request.length - bytes;
        break;
    case Injection::wrong_data:
        if (operation.content == Content::loads &&
            is_on_medium(request, request.length + medium().unit))
            ++request.position;
        break;
    case Injection::late:
    case Injection::none:
        break;
    }
    return request;
}

Result<Answer> Injector::WrongDriver::do_run(const Request& request) {
    if (injector_.misbehave_)
        injector_.misbehave_(injector_.wrong_.what);
    else if (injector_.wrong_.what == Injection::late && request.length != ByteCount(0))
        injector_.doomed_ = request.data;
    const Request told = changed(request);
    const bool same = told.data == request.data && told.length == request.length &&
                      told.operation == request.operation && told.position == request.position;
    injector_.injected_ += same ? 0 : 1;
    if (request.length != ByteCount(0))
        previous_ = request.data;
    return inner_->run(told);
}

void Injector::apply_to(AuditOptions& options, const machine::Machine& machine) {
    if (wrong_.what == Injection::none)
        return;
    options.wrap_domain = [this, keeps = machine.name() == "soft"](machine::Domain& domain) {
        return std::make_unique<WrongDomain>(*this, domain, keeps);
    };
    options.probe = [this](Seat seat) -> Result<std::unique_ptr<Driver>> {
        seat.before_wait = [this] {
            if (domain_ != nullptr)
                domain_->unmap_doomed();
        };
        MOAT_LET(auto driver, audit::probe(seat));
        return std::make_unique<WrongDriver>(*this, std::move(driver));
    };
}

namespace {

using namespace std::chrono_literals;

using machine::Bdf;

constexpr std::array<Kind, 23> all_kinds = {
    {{"soft", "nvme", "an NVM Express controller in this process", true, Bdf(0, 5, 0)},
     {"soft", "edu", "a teaching device with one DMA engine in this process", true, Bdf(0, 4, 0)},
     {"soft", "nvme-ats", "the same NVM Express controller, which caches translations (ATS)", false,
      Bdf(0, 5, 0)},
     {"qemu", "nvme", "QEMU's NVM Express controller", true, Bdf(0, 5, 0)},
     {"qemu", "virtio-blk", "QEMU's virtio block device with iommu_platform=on", true,
      Bdf(0, 6, 0)},
     {"qemu", "ahci", "QEMU's AHCI controller with a disk", true, Bdf(0, 7, 0)},
     {"qemu", "e1000e", "QEMU's Intel 82574 network controller, looped back", true, Bdf(0, 8, 0)},
     {"qemu", "e1000", "QEMU's Intel 82540EM network controller, looped back", true, Bdf(0, 17, 0)},
     {"qemu", "xhci", "QEMU's USB 3 controller with a disk", true, Bdf(0, 10, 0)},
     {"qemu", "virtio-scsi", "QEMU's virtio SCSI controller with a disk", true, Bdf(0, 11, 0)},
     {"qemu", "sdhci", "QEMU's SD host controller with a card", true, Bdf(0, 14, 0)},
     {"qemu", "virtio-net", "QEMU's virtio network device, looped back", true, Bdf(0, 12, 0)},
     {"qemu", "vmxnet3", "QEMU's vmxnet3 network device, looped back", true, Bdf(0, 18, 0)},
     {"qemu", "hda", "QEMU's HD Audio controller; up to 100 ms per operation", true, Bdf(0, 16, 0)},
     {"qemu", "edu", "QEMU's teaching device; 100 ms per operation", true, Bdf(0, 4, 0)},
     {"qemu", "virtio-blk-packed", "QEMU's virtio block device with packed queues", false,
      Bdf(0, 6, 0)},
     {"qemu", "virtio-scsi-packed", "QEMU's virtio SCSI controller with packed queues", false,
      Bdf(0, 11, 0)},
     {"qemu", "virtio-net-packed", "QEMU's virtio network device with packed queues", false,
      Bdf(0, 12, 0)},
     {"qemu", "virtio-blk-ats", "QEMU's virtio block device with ats=on, behind a port", false,
      Bdf(1, 0, 0)},
     {"qemu", "virtio-blk-direct", "QEMU's virtio block device without iommu_platform", false,
      Bdf(0, 9, 0)},
     {"qemu", "pvscsi", "QEMU's paravirtual SCSI controller, whose lists bypass the IOMMU", false,
      Bdf(0, 15, 0)},
     {"vfio", "nvme",
      "the first NVM Express controller bound to vfio-pci; the audit writes to its disk", false},
     {"vfio", "edu", "the first of QEMU's teaching devices bound to vfio-pci"}}};

constexpr ByteCount disk_bytes{std::uint64_t{4} << 20};

machine::qemu::QemuOptions qemu_options(std::string_view name) {
    machine::qemu::QemuOptions options;
    std::string virtio = ",disable-legacy=on";
    constexpr std::string_view with_packed_queues = "-packed";
    if (name.ends_with(with_packed_queues)) {
        name.remove_suffix(with_packed_queues.size());
        virtio += ",packed=on";
    }
    if (name != "virtio-blk-direct")
        virtio += ",iommu_platform=on";
    if (name == "edu")
        options.devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"};
    else if (name == "nvme")
        options.devices = {"nvme,drive=disk0,serial=moat,addr=5,mdts=9"}; // 2M; 11.1 takes no more
    else if (name == "virtio-blk")
        options.devices = {"virtio-blk-pci,drive=disk0,serial=moat,addr=6" + virtio};
    else if (name == "virtio-blk-ats")
        options.devices = {"pcie-root-port,id=rp0,chassis=1,addr=3",
                           "virtio-blk-pci,bus=rp0,drive=disk0,serial=moat,ats=on" + virtio};
    else if (name == "virtio-blk-direct")
        options.devices = {"virtio-blk-pci,drive=disk0,serial=moat,addr=9" + virtio};
    else if (name == "ahci")
        options.devices = {"ahci,id=ahci,addr=7", "ide-hd,drive=disk0,bus=ahci.0"};
    else if (name == "virtio-scsi")
        options.devices = {"virtio-scsi-pci,id=scsi,addr=b" + virtio,
                           "scsi-hd,drive=disk0,bus=scsi.0"};
    else if (name == "pvscsi")
        options.devices = {"pvscsi,id=scsi,addr=f", "scsi-hd,drive=disk0,bus=scsi.0"};
    else if (name == "hda") {
        options.devices = {"intel-hda,addr=10", "hda-duplex,audiodev=audio"};
        options.arguments = {"-audiodev", "none,id=audio,timer-period=1000"}; // in us
    } else if (name == "sdhci")
        options.devices = {"sdhci-pci,addr=e", "sd-card,drive=disk0"};
    else if (name == "virtio-net")
        options.devices = {"virtio-net-pci,netdev=wire0,romfile=,addr=c" + virtio};
    else if (name == "vmxnet3")
        options.devices = {"vmxnet3,netdev=wire0,romfile=,addr=12"};
    else if (name == "xhci")
        options.devices = {"qemu-xhci,id=usb,addr=a", "usb-storage,drive=disk0,bus=usb.0"};
    else if (name == "e1000") {
        options.devices = {"e1000,addr=11,romfile="};
        // Virtual time passes while the processor halts: the receiver starts a second late.
        options.arguments = {"-icount", "shift=0,sleep=off"};
    } else
        options.devices = {"e1000e,addr=8"};
    if (name == "virtio-net" || name == "vmxnet3")
        options.wires = 1;
    else if (name != "edu" && !name.starts_with("e1000") && name != "hda")
        options.disks = {disk_bytes}; // in memory
    return options;
}

[[nodiscard]] std::string not_installed(machine::qemu::IommuModel iommu) {
    const std::string_view program = machine::qemu::board_of(iommu).program;
    return std::string(program) + " is not in PATH; install QEMU for " +
           (program.ends_with("aarch64") ? "Arm" : "x86-64") + "\n";
}

/// What a soft device does wrong; its driver does the rest.
[[nodiscard]] machine::soft::Misdeed misdeed_of(Injection what) {
    using machine::soft::Misdeed;
    constexpr std::array<Misdeed, injection_names.size()> misdeeds = {
        Misdeed::none,          Misdeed::overrun,
        Misdeed::underrun,      Misdeed::write_after_completion,
        Misdeed::stale_address, Misdeed::read_only_violated,
        Misdeed::wrong_length,  Misdeed::none,
        Misdeed::stale_address, Misdeed::data_mixed_up};
    return misdeeds[static_cast<std::size_t>(what)];
}

[[nodiscard]] bool is_of(const Kind& kind, const machine::FunctionInfo& function) {
    constexpr std::uint32_t nvm_express = 0x010802;
    constexpr std::uint16_t edu_device = 0x11e8;
    return kind.name == "nvme" ? function.class_code == nvm_express : function.device == edu_device;
}

} // namespace

std::span<const Kind> kinds() {
    return all_kinds;
}

std::string_view limits_of(const Kind& kind) {
    if (kind.machine != "qemu")
        return {};
    if (kind.iommu == machine::qemu::IommuModel::none)
        return "Without an IOMMU nothing is blocked or recorded. Canaries show writes up to the "
               "guards' ends and into unmapped buffers. Reads, and writes elsewhere, go "
               "undetected.";
    if (kind.iommu == machine::qemu::IommuModel::amd)
        return "QEMU's AMD IOMMU does not record where it blocks an access (7.2: nothing at all), "
               "so "
               "guards are memory. Canaries show writes up to the guards' ends. Reads, writes "
               "elsewhere, and late accesses go undetected.";
    if (kind.iommu == machine::qemu::IommuModel::smmuv3)
        return "The SMMU records words of 4 bytes: sizes of blocked accesses are rounded up to 4 "
               "bytes. It has no write-only pages: a device may read the buffers that it writes.";
    if (kind.iommu == machine::qemu::IommuModel::virtio)
        return "The virtio-iommu reports words of 4 bytes, at most 128 of an access: sizes of "
               "blocked accesses are rounded up to 4 bytes and may be too small.";
    return {};
}

Result<Kind> vfio_kind_at(Bdf address, std::string& words) {
    MOAT_LET(const auto vfio, machine::vfio_host::VfioMachine::open());
    words = "bound to vfio-pci:\n";
    for (const machine::FunctionInfo& function : vfio->functions()) {
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
    const auto subject = [&](auto machine, Bdf address,
                             std::unique_ptr<machine::soft::MovingModel> model = nullptr) {
        return std::unique_ptr<Subject>(
            new Subject(std::move(machine), address, wrong, std::move(model)));
    };
    if (kind.machine == "soft") {
        std::unique_ptr<machine::soft::MovingModel> model;
        using machine::soft::Ats;
        const Ats ats = kind.name == "nvme-ats" ? Ats::enabled : Ats::absent;
        if (kind.name.starts_with("nvme"))
            model = std::make_unique<machine::soft::Nvme>();
        else
            model = std::make_unique<machine::soft::Edu>();
        auto soft = std::make_unique<machine::soft::SoftMachine>();
        MOAT_TRY(soft->add(*kind.address, *model, ats));
        return subject(std::move(soft), *kind.address, std::move(model));
    }
    if (kind.machine == "vfio-user") {
        using namespace machine::vfio_user;
        MOAT_LET(auto remote, VfioUserMachine::connect(
                                  {.socket = std::string(kind.socket),
                                   .dma = kind.shares_memory ? Dma::shared : Dma::message}));
        return subject(std::move(remote), VfioUserMachine::address);
    }
    if (kind.machine == "vfio") {
        MOAT_LET(auto vfio, machine::vfio_host::VfioMachine::open());
        for (const machine::FunctionInfo& each : vfio->functions())
            if (is_of(kind, each) && each.address == kind.address.value_or(each.address))
                return subject(std::move(vfio), Bdf(each.address));
        return fail(ErrorCode::not_found, "vfio-pci has no such device (moat devices, moat bind)");
    }
    auto options = qemu_options(kind.name);
    options.iommu = kind.iommu;
    options.words = words;
    auto qemu = machine::qemu::QemuMachine::start(options);
    if (!qemu) {
        if (qemu.error().code() == ErrorCode::not_found && words != nullptr && words->empty())
            *words = not_installed(kind.iommu);
        return std::unexpected(qemu.error());
    }
    const auto functions = (*qemu)->functions();
    if (std::ranges::find(functions, *kind.address, &machine::FunctionInfo::address) ==
        functions.end())
        return fail(ErrorCode::not_found, "QEMU has no such device");
    return subject(std::move(*qemu), *kind.address);
}

Subject::Subject(std::unique_ptr<machine::Machine> machine, Bdf address, const Wrong& wrong,
                 std::unique_ptr<machine::soft::MovingModel> model)
    : model_(std::move(model)), machine_(std::move(machine)), address_(address) {
    inject(wrong);
}

Subject::~Subject() = default;

void Subject::inject(const Wrong& wrong) {
    std::function<void(Injection)> misbehave;
    if (model_)
        misbehave = [this, bytes = wrong.bytes, delay = wrong.delay](Injection what) {
            model_->misbehave({.misdeed = misdeed_of(what), .bytes = bytes, .delay = delay});
        };
    injector_ = std::make_unique<Injector>(wrong, std::move(misbehave));
}

AuditOptions Subject::options() {
    AuditOptions options;
    injector_->apply_to(options, *machine_);
    if (const auto* const in_qemu = qemu()) {
        options.decoys = in_qemu->iommu_model() == machine::qemu::IommuModel::none
                             ? Decoys::in_place
                             : Decoys::at_physical_addresses;
        options.records_faults = in_qemu->fault_records() == machine::qemu::FaultRecords::complete;
        options.guards = options.records_faults ? Guards::unmapped : Guards::canaries;
        options.round_trips = [in_qemu] { return in_qemu->qtest().round_trips(); };
    } else {
        // The kernel reports a fault some tenths of a millisecond later.
        options.settle = model_ ? 1ms : 2ms;
    }
    return options;
}

std::uint64_t Subject::wronged() const {
    return injector_->injected() + (model_ ? model_->misdeeds() : 0);
}

machine::qemu::QemuMachine* Subject::qemu() {
    return dynamic_cast<machine::qemu::QemuMachine*>(machine_.get());
}

} // namespace moat::audit
