// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/qemu_machine.hpp"

#include "moat/core/bits.hpp"

#include "machine/qemu/no_iommu.hpp"
#include "machine/qemu/virtio_function.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <sched.h>
#include <span>
#include <thread>

namespace moat::machine::qemu {

class QemuFunction final : public Function {
  public:
    QemuFunction(QemuMachine& machine, const PciFunction& function)
        : Function(function.info), machine_(machine), function_(function),
          config_(machine.qtest_, machine.board_.pci.ecam, function.info.address) {}

    ~QemuFunction() override {
        set_bus_master(false);
        machine_.qtest_.drain();
        machine_.opened_.erase(info().address);
    }

    [[nodiscard]] Registers& config() override { return config_; }

    /// PCI Local Bus 3.0, 6.8.2: the vector table lies in a BAR, 16 bytes per vector.
    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        MOAT_LET(const unsigned found,
                 find_capability(pci::capability_msix, "the function has no MSI-X"));
        const unsigned control = found + 2;
        const std::uint32_t table = config_.read32(found + 4);
        MOAT_LET(Registers* const registers, bar(table & 7));
        constexpr unsigned most = 1024; // words of 32 bits in the page
        const unsigned count = std::min({wanted, (config_.read16(control) & 0x7ffU) + 1, most});
        const std::uint64_t first = table & ~7U;
        if (count == 0 || first + 16ULL * count > registers->size().value())
            return fail(ErrorCode::io, "the table of MSI-X vectors does not fit its BAR",
                        {"offset", first}, {"vectors", count});
        MOAT_LET(const auto seen, machine_.map_interrupts(info().address));
        interrupts_ = seen.second;
        for (unsigned vector = 0; vector != count; ++vector) {
            const std::uint64_t entry = first + 16ULL * vector;
            const std::uint64_t message = seen.first.value() + 4ULL * vector;
            registers->write_halves(entry, message);
            registers->write32(entry + 8, 1);
            registers->write32(entry + 12, 0); // unmasked
        }
        constexpr std::uint16_t enabled = 1U << 15;
        config_.write16(control, enabled);
        return count;
    }

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        if (vector >= interrupts_.size() / sizeof(std::uint32_t))
            return false;
        auto& word = reinterpret_cast<std::uint32_t*>(interrupts_.data())[vector];
        const std::atomic_ref<std::uint32_t> message(word);
        return message.load(std::memory_order_relaxed) != 0 &&
               message.exchange(0, std::memory_order_acquire) != 0;
    }

    /// PCI Express Base 5.0, 7.5.3.3 and 7.5.3.4: restores the header fields that FLR resets.
    [[nodiscard]] Result<void> reset() override {
        constexpr std::uint8_t capability_express = 0x10;
        constexpr std::uint32_t can_reset = 1U << 28;
        constexpr std::uint16_t initiate = 1U << 15;
        constexpr const char* cannot = "the function cannot be reset alone";
        MOAT_LET(const unsigned found, find_capability(capability_express, cannot));
        if ((config_.read32(found + 4) & can_reset) == 0)
            return fail(ErrorCode::unsupported, cannot, {"requester", info().address.requester()});
        config_.write16(found + 8, config_.read16(found + 8) | initiate);
        for (unsigned index = 0; index != 6; ++index) {
            if (!function_.bars[index])
                continue;
            const std::uint64_t start = function_.bars[index]->value();
            const unsigned offset = pci::first_bar + 4 * index;
            config_.write32(offset, static_cast<std::uint32_t>(start));
            if (info().bars[index].kind == BarKind::memory64)
                config_.write32(offset + 4, static_cast<std::uint32_t>(start >> 32));
        }
        config_.write16(pci::command, pci::command_memory | pci::command_no_intx);
        if (function_.ats != 0 && machine_.attached_.contains(info().address))
            config_.write16(function_.ats + pci::ats_control, pci::ats_enabled);
        machine_.qtest_.drain();
        return machine_.health();
    }

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
        if (!function_.bars[index])
            return fail(ErrorCode::no_space, "there was no room for the BAR", {"bar", index});
        return std::make_unique<MemoryRegisters>(machine_.qtest_, *function_.bars[index],
                                                 info().bars[index].size);
    }

    /// Errors: unsupported, with `sentence`.
    [[nodiscard]] Result<unsigned> find_capability(std::uint8_t id, const char* sentence) {
        unsigned found = 0;
        const auto matches = [&](unsigned offset, std::uint8_t each) {
            found = each == id ? offset : found;
            return each == id;
        };
        each_capability(config_, matches);
        if (found == 0)
            return fail(ErrorCode::unsupported, sentence,
                        {"requester", info().address.requester()});
        return found;
    }

    QemuMachine& machine_;
    const PciFunction& function_;
    ConfigRegisters config_;
    std::span<std::byte> interrupts_;
};

namespace {

/// Offsets into memory: the IOMMU's tables, with shared memory above. The machine uses what is
/// below.
constexpr std::uint64_t tables_start = std::uint64_t{1} << 20;
constexpr std::uint64_t tables_end = std::uint64_t{16} << 20;

Result<platform::MemoryFile> halting_firmware(const Board& board) {
    MOAT_LET(auto file, platform::MemoryFile::create("moat firmware", ByteCount(64 << 10)));
    std::ranges::copy(std::as_bytes(board.firmware), file.bytes().subspan(board.reset).begin());
    return file;
}

std::string megabytes(ByteCount size) {
    return std::to_string(size.value() >> 20) + "M";
}

std::vector<std::string> command_line(const Board& board, const QemuOptions& options,
                                      const platform::MemoryFile& ram,
                                      const std::vector<platform::MemoryFile>& disks,
                                      const std::vector<std::unique_ptr<Wire>>& wires,
                                      const platform::MemoryFile& firmware, int socket) {
    std::vector<std::string> line = {options.program.empty() ? std::string(board.program)
                                                             : options.program};
    // The IOMMU comes first, so that the devices after it find it.
    line.insert(line.end(), board.arguments.begin(), board.arguments.end());
    line.insert(line.end(), {"-accel", "tcg", "-no-user-config", "-nodefaults", "-display", "none",
                             "-bios", firmware.path(), "-m", megabytes(options.ram), "-object",
                             "memory-backend-file,id=ram,share=on,size=" + megabytes(options.ram) +
                                 ",mem-path=" + ram.path(),
                             "-chardev", "socket,id=qtest,fd=" + std::to_string(socket), "-qtest",
                             "chardev:qtest", "-qtest-log", "none"});
    for (std::size_t i = 0; i != disks.size(); ++i)
        line.insert(line.end(), {"-drive", "if=none,format=raw,id=disk" + std::to_string(i) +
                                               ",file=" + disks[i].path()});
    for (std::size_t i = 0; i != wires.size(); ++i)
        line.insert(line.end(), {"-netdev", "socket,id=wire" + std::to_string(i) +
                                                ",fd=" + std::to_string(wires[i]->child())});
    line.insert(line.end(), options.arguments.begin(), options.arguments.end());
    for (const std::string& device : options.devices)
        line.insert(line.end(), {"-device", device});
    return line;
}

} // namespace

Result<std::unique_ptr<QemuMachine>> QemuMachine::start(const QemuOptions& options) {
    std::string words;
    QemuOptions own = options;
    own.words = &words;
    const Board& board = board_of(options.iommu);
    auto machine = start_on(board, own);
    if (!machine && board.older != nullptr && words.find(board.needs) != std::string::npos)
        machine = start_on(*board.older, own);
    if (!machine && options.words != nullptr)
        *options.words = words;
    return machine;
}

Result<std::unique_ptr<QemuMachine>> QemuMachine::start_on(const Board& board,
                                                           const QemuOptions& options) {
    if (options.ram > board.most_ram || options.ram.value() <= tables_end ||
        !is_aligned(options.ram.value(), 20))
        return fail(ErrorCode::out_of_range, "QEMU's memory is above 16M, and 2G at most",
                    {"ram", options.ram.value()});
    MOAT_LET(auto ram, platform::MemoryFile::create("moat QEMU memory", options.ram));
    MOAT_LET(const auto firmware, halting_firmware(board));
    MOAT_LET(auto socket, platform::StreamSocket::create(options.patience));
    std::vector<int> descriptors = {ram.descriptor(), firmware.descriptor(), socket.child()};
    std::vector<platform::MemoryFile> disks;
    for (const ByteCount size : options.disks) {
        MOAT_LET(auto disk, platform::MemoryFile::create("moat QEMU disk", size));
        descriptors.push_back(disk.descriptor());
        disks.push_back(std::move(disk));
    }
    std::vector<std::unique_ptr<Wire>> wires;
    for (unsigned i = 0; i != options.wires; ++i) {
        MOAT_LET(auto wire, Wire::create());
        descriptors.push_back(wire->child());
        wires.push_back(std::move(wire));
    }
    MOAT_LET(auto process,
             platform::ChildProcess::start(
                 command_line(board, options, ram, disks, wires, firmware, socket.child()),
                 descriptors));
    socket.close_child();
    for (const auto& each : wires)
        each->close_child();
    std::unique_ptr<QemuMachine> machine(new QemuMachine(options.iommu, board, std::move(ram),
                                                         std::move(disks), std::move(wires),
                                                         std::move(process), std::move(socket)));
    if (const auto done = machine->set_up(options); !done) {
        const auto health = machine->health();
        *options.words = machine->qtest_.words();
        return std::unexpected(health ? done.error() : health.error());
    }
    return machine;
}

QemuMachine::QemuMachine(IommuModel model, const Board& board, platform::MemoryFile ram,
                         std::vector<platform::MemoryFile> disks,
                         std::vector<std::unique_ptr<Wire>> wires, platform::ChildProcess process,
                         platform::StreamSocket socket)
    : model_(model), board_(board), ram_(std::move(ram)), disks_(std::move(disks)),
      wires_(std::move(wires)), qtest_(std::move(process), std::move(socket)),
      table_headers_((tables_end - tables_start) >> 12),
      tables_(ram_.bytes().subspan(tables_start, tables_end - tables_start),
              board_.ram + ByteCount(tables_start), table_headers_, 12),
      free_{{tables_end, ram_.bytes().size() - tables_end}} {}

QemuMachine::~QemuMachine() {
    RealSync::barrier();
    MOAT_CHECK(opened_.empty() && attached_.empty(),
               "functions are closed and detached before their machine ends");
}

namespace {

/// An IOMMU that is itself a function on the bus.
bool is_iommu(const PciFunction& function) {
    constexpr std::uint32_t class_iommu = 0x0806;
    return function.info.class_code >> 8 == class_iommu || is_virtio_iommu(function);
}

} // namespace

/// Sets up the bus like firmware.
Result<void> QemuMachine::set_up(const QemuOptions& options) {
    board_.enable_ecam(qtest_);
    MOAT_LET(functions_, configure_bus(qtest_, board_.pci));
    // The host's own bridges are class 6 too.
    std::erase_if(functions_,
                  [](const PciFunction& each) { return each.info.class_code >> 16 == 6; });
    MOAT_TRY(health());
    MOAT_LET(iommu_, open_iommu(options));
    std::erase_if(functions_, is_iommu);
    for (PciFunction& each : functions_) {
        ConfigRegisters config(qtest_, board_.pci.ecam, each.info.address);
        if (iommu_->serves_device_tlbs())
            each.ats = find_extended_capability(config, pci::extended_ats);
        each.info.caches_translations = each.ats != 0;
        infos_.push_back(each.info);
    }
    return {};
}

namespace {

/// Writes there are interrupt messages.
constexpr std::array<IovaRange, 1> q35_messages = {
    IovaRange(Iova(0xfee00000), ByteCount(0x100000))};

} // namespace

Result<std::unique_ptr<QemuIommu>> QemuMachine::open_iommu(const QemuOptions& options) {
    if (options.iommu == IommuModel::amd)
        return AmdIommu::open(qtest_, board_.iommu, tables_, options.amd);
    if (options.iommu == IommuModel::smmuv3)
        return SmmuIommu::open(qtest_, board_.iommu, tables_, options.smmuv3);
    if (options.iommu == IommuModel::none)
        return std::make_unique<NoIommu>(PhysicalRange(board_.ram, options.ram));
    if (options.iommu == IommuModel::virtio) {
        MOAT_LET(const VirtioFunction found,
                 enable_virtio_iommu(qtest_, board_.pci.ecam, functions_));
        const iommu::virtio::UnitOptions unit = {.layout = found.layout, .reserved = q35_messages};
        return VirtioIommu::open(qtest_, found.bar, tables_, unit);
    }
    return VtdIommu::open(qtest_, board_.iommu, tables_, options.vtd);
}

const PciFunction* QemuMachine::find(Bdf address) const {
    const auto found = std::ranges::find(functions_, address,
                                         [](const PciFunction& each) { return each.info.address; });
    return found == functions_.end() ? nullptr : &*found;
}

Result<std::unique_ptr<Function>> QemuMachine::open(Bdf address) {
    const PciFunction* const found = find(address);
    if (found == nullptr)
        return fail(ErrorCode::not_found, "there is no such function",
                    {"requester", address.requester()});
    if (!opened_.insert(address).second)
        return fail(ErrorCode::busy, "the function is open already",
                    {"requester", address.requester()});
    return std::make_unique<QemuFunction>(*this, *found);
}

Result<std::unique_ptr<Domain>> QemuMachine::create_domain() {
    return iommu_->create_domain();
}

Result<void> QemuMachine::attach(Bdf function, Domain& domain) {
    if (find(function) == nullptr)
        return fail(ErrorCode::not_found, "there is no such function",
                    {"requester", function.requester()});
    auto* const ours = dynamic_cast<QemuDomain*>(&domain);
    MOAT_CHECK(ours != nullptr, "a domain is attached by the machine that made it");
    if (const unsigned ats = find(function)->ats; ats == 0) {
        MOAT_TRY(ours->attach(function.requester(), {}));
    } else {
        ConfigRegisters config(qtest_, board_.pci.ecam, function);
        const std::uint8_t depth = config.read8(ats + pci::ats_capability) & 0x1fU;
        MOAT_TRY(ours->attach(function.requester(), depth));
        config.write16(ats + pci::ats_control, pci::ats_enabled);
    }
    attached_.emplace(function, Attachment{.domain = ours, .interrupts = {}});
    return {};
}

Result<void> QemuMachine::detach(Bdf function) {
    const auto found = attached_.find(function);
    if (found == attached_.end())
        return fail(ErrorCode::not_found, "the function is attached to no domain",
                    {"requester", function.requester()});
    Attachment& attachment = found->second;
    auto detached = iommu_->detach(function.requester());
    if (const unsigned ats = find(function)->ats; ats != 0)
        ConfigRegisters(qtest_, board_.pci.ecam, function).write16(ats + pci::ats_control, 0);
    if (attachment.interrupts) {
        const auto unmapped = attachment.domain->unmap_interrupts(function.requester());
        if (!detached || !unmapped)
            kept_.push_back(std::move(attachment.interrupts->second));
        if (detached)
            detached = unmapped;
    }
    attached_.erase(found);
    return detached;
}

Result<std::pair<Iova, std::span<std::byte>>> QemuMachine::map_interrupts(Bdf function) {
    const auto found = attached_.find(function);
    if (found == attached_.end())
        return fail(ErrorCode::refused, "interrupts need a domain that they arrive through",
                    {"requester", function.requester()});
    Attachment& attachment = found->second;
    if (!attachment.interrupts) {
        MOAT_LET(auto page, allocate(ByteCount(4096)));
        const auto mapped =
            attachment.domain->map_interrupts(function.requester(), page.physical());
        if (!mapped) {
            if (mapped.error().code() == ErrorCode::io)
                kept_.push_back(std::move(page));
            return std::unexpected(mapped.error());
        }
        attachment.interrupts.emplace(*mapped, std::move(page));
    }
    const auto& [start, page] = *attachment.interrupts;
    return std::pair(start, page.bytes());
}

Result<SharedMemory> QemuMachine::allocate(ByteCount size, unsigned alignment_lg2) {
    if (size == ByteCount(0))
        return fail(ErrorCode::empty, "cannot allocate 0 bytes");
    const unsigned aligned = std::max(alignment_lg2, 12U);
    const std::uint64_t bytes = align_up(size.value(), 12);
    for (auto [start, length] : free_) {
        const std::uint64_t first = align_up(start, aligned);
        if (bytes < size.value() || first < start || first - start > length ||
            bytes > length - (first - start))
            continue;
        free_.erase(start);
        if (first != start)
            free_.emplace(start, first - start);
        if (const std::uint64_t rest = length - (first - start) - bytes; rest != 0)
            free_.emplace(first + bytes, rest);
        return SharedMemory(*this, ram_.bytes().subspan(first, bytes),
                            board_.ram + ByteCount(first));
    }
    return fail(ErrorCode::no_memory, "QEMU's memory has no free range of this size",
                {"size", bytes}, {"alignment", bit(aligned)});
}

void QemuMachine::release_shared(PhysicalAddress physical, ByteCount size) {
    std::uint64_t start = physical.value() - board_.ram.value();
    std::uint64_t length = size.value();
    platform::zero_pages(ram_.bytes().subspan(start, length));
    auto after = free_.lower_bound(start);
    if (after != free_.end() && start + length == after->first) {
        length += after->second;
        after = free_.erase(after);
    }
    if (after != free_.begin()) {
        const auto before = std::prev(after);
        if (before->first + before->second == start) {
            before->second += length;
            return;
        }
    }
    free_.emplace(start, length);
}

Result<std::uint64_t> QemuMachine::take_faults(FunctionRef<void(const fault::Record&)> each) {
    const std::uint64_t lost = iommu_->take_faults(each);
    MOAT_TRY(health());
    return lost;
}

Wait QemuMachine::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    using namespace std::chrono_literals;
    qtest_.flush();
    qtest_.finish_meanwhile();
    const auto begin = now();
    std::chrono::nanoseconds pause = 10us;
    while (!happened()) {
        for (const auto& each : wires_)
            each->pump();
        const auto passed = now() - begin;
        if (passed >= longest || !health())
            return Wait::timed_out;
        // QEMU answers sooner than the shortest sleep, if it has a processor.
        if (passed < 300us) {
            ::sched_yield();
            continue;
        }
        std::this_thread::sleep_for(pause);
        pause = std::min<std::chrono::nanoseconds>(2 * pause, 1ms);
    }
    return Wait::happened;
}

} // namespace moat::machine::qemu
