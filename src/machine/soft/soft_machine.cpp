// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The soft machine's slots (a model, its access to memory, and the CPU's view of it), bus, memory
// and clock, and its domains over the software IOMMU.
#include "machine/soft/soft_machine.hpp"

#include "moat/core/bits.hpp"
#include "moat/core/check.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/owned_tables.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/soft/device_model.hpp"
#include "platform/memory_file.hpp"
#include "platform/try.hpp"

#include <algorithm>
#include <array>
#include <bitset>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace moat::machine::soft {

using SoftTree = Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>;
using TranslatingDomain = iommu::SoftDomain<SoftTree>;

/// The memory of one machine. Devices use its own addresses: a bad physical address in a table
/// reaches nothing.
class HostRam {
  public:
    using Pieces = std::map<std::uint64_t, std::uint64_t>; ///< start to size

    explicit HostRam(const Pieces& pieces) : pieces_(&pieces) {}

    [[nodiscard]] std::byte* find(PhysicalAddress physical, ByteCount size) const {
        const auto after = pieces_->upper_bound(physical.value());
        if (after == pieces_->begin())
            return nullptr;
        const auto& [start, bytes] = *std::prev(after);
        const std::uint64_t offset = physical.value() - start;
        if (offset >= bytes || size.value() > bytes - offset)
            return nullptr;
        return reinterpret_cast<std::byte*>(physical.value());
    }

  private:
    const Pieces* pieces_;
};

static_assert(iommu::HostMemory<HostRam>);

using Iommu = iommu::SoftIommu<TranslatingDomain, HostRam>;

/// The bus as one model sees it.
class Slot final : public BusMaster {
  public:
    /// `now` is the machine's clock, which outlives it.
    Slot(Bdf address, DeviceModel& model, Iommu::Device& device,
         const std::chrono::nanoseconds& now)
        : model_(model), info_(model.info()), lane_(device), now_(now) {
        info_.address = address;
    }

    [[nodiscard]] DeviceModel& model() { return model_; }

    [[nodiscard]] const FunctionInfo& info() const { return info_; }

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        return master ? lane_.read(from, into).done : ByteCount();
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        return master ? lane_.write(to, from).done : ByteCount();
    }

    void interrupt(unsigned vector) override {
        if (master && vector < enabled_vectors)
            raised.set(vector);
    }

    [[nodiscard]] std::chrono::nanoseconds now() override { return now_; }

    // For the open function.
    bool open = false;
    bool attached = false;
    bool master = false;
    unsigned enabled_vectors = 0;
    std::bitset<64> raised;

  private:
    DeviceModel& model_;
    FunctionInfo info_;
    iommu::Lane<Iommu::Device> lane_;
    const std::chrono::nanoseconds& now_;
};

/// A model's BAR.
class BarRegisters final : public Registers {
  public:
    BarRegisters(DeviceModel& model, unsigned index, ByteCount size)
        : Registers(size), model_(model), index_(index) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        return model_.read(index_, offset, width);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        model_.write(index_, offset, width, value);
    }

    DeviceModel& model_;
    const unsigned index_;
};

/// Configuration space: a function's header, in which only bus mastering is writable.
class ConfigRegisters final : public Registers {
  public:
    explicit ConfigRegisters(Slot& slot) : Registers(ByteCount(256)), slot_(slot) {
        const FunctionInfo& info = slot.info();
        put(pci::vendor_id, info.vendor, 2);
        put(pci::vendor_id + 2, info.device, 2);
        put(pci::class_revision, std::uint64_t{info.class_code} << 8, 4);
    }

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        put(pci::command, pci::command_memory | (slot_.master ? pci::command_master : 0U), 2);
        std::uint64_t value = 0;
        for (unsigned at = 0; at != static_cast<unsigned>(width); ++at)
            value |= std::uint64_t{bytes_[offset + at]} << 8 * at;
        return value;
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        if (offset == pci::command && width != Width::bits8)
            slot_.master = (value & pci::command_master) != 0;
    }

    void put(unsigned offset, std::uint64_t value, unsigned bytes) {
        for (unsigned at = 0; at != bytes; ++at)
            bytes_[offset + at] = static_cast<std::uint8_t>(value >> 8 * at);
    }

    Slot& slot_;
    std::array<std::uint8_t, 256> bytes_{};
};

class SoftFunction final : public Function {
  public:
    explicit SoftFunction(Slot& slot) : Function(slot.info()), slot_(slot), config_(slot) {
        slot_.open = true;
    }

    ~SoftFunction() override {
        quiet();
        slot_.open = false;
    }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        if (!slot_.attached)
            return fail(ErrorCode::refused, "interrupts need a domain");
        if (slot_.model().vectors() == 0)
            return fail(ErrorCode::unsupported, "the function has no interrupts",
                        {"wanted", wanted});
        slot_.enabled_vectors = std::clamp(wanted, 1U, slot_.model().vectors());
        return slot_.enabled_vectors;
    }

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        if (vector >= slot_.enabled_vectors || !slot_.raised.test(vector))
            return false;
        slot_.raised.reset(vector);
        return true;
    }

    [[nodiscard]] Result<void> reset() override {
        slot_.model().reset();
        quiet();
        slot_.raised.reset();
        return {};
    }

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
        return std::make_unique<BarRegisters>(slot_.model(), index, info().bars[index].size);
    }

    void quiet() {
        slot_.master = false;
        slot_.enabled_vectors = 0;
    }

    Slot& slot_;
    ConfigRegisters config_;
};

namespace {

constexpr std::size_t tables_of_a_domain = 1024;

/// Tables, and the domain over them.
class OwnDomain final : public ForwardingDomain<TranslatingDomain> {
  public:
    using Tables = OwnedTables<RealSync>;

    OwnDomain(std::unique_ptr<Tables> tables, TranslatingDomain::Table table)
        : ForwardingDomain(domain_), tables_(std::move(tables)), domain_(std::move(table)) {}

  private:
    std::unique_ptr<Tables> tables_;
    TranslatingDomain domain_;
};

/// The duration of a step of the devices, by the machine's clock.
constexpr std::chrono::nanoseconds step_time{1000};

[[nodiscard]] fault::Source source_of(Bdf address) {
    return fault::Source::requester(address.requester(), address.segment());
}

[[nodiscard]] std::unexpected<Error> no_function(Bdf address) {
    return fail(ErrorCode::not_found, "no function has this address",
                {"requester", address.requester()});
}

} // namespace

class SoftMachine::Parts {
  public:
    [[nodiscard]] Slot* find(Bdf address) {
        for (const auto& slot : slots)
            if (slot->info().address == address)
                return slot.get();
        return nullptr;
    }

    HostRam::Pieces pieces;
    std::map<std::uint64_t, platform::Mapping> memory;
    Iommu iommu{HostRam(pieces)};
    std::vector<std::unique_ptr<Slot>> slots;
    std::chrono::nanoseconds now{0};
};

SoftMachine::SoftMachine() : parts_(std::make_unique<Parts>()) {}

SoftMachine::~SoftMachine() = default;

Result<void> SoftMachine::add(Bdf address, DeviceModel& model) {
    for (const auto& slot : parts_->slots)
        if (slot->open)
            return fail(ErrorCode::busy, "functions are added before any is opened");
    MOAT_LET(Iommu::Device* const device, parts_->iommu.add_device(source_of(address)));
    parts_->slots.push_back(std::make_unique<Slot>(address, model, *device, parts_->now));
    std::ranges::sort(parts_->slots, {}, [](const auto& slot) { return slot->info().address; });
    infos_.clear();
    for (const auto& slot : parts_->slots)
        infos_.push_back(slot->info());
    return {};
}

Result<std::unique_ptr<Function>> SoftMachine::open(Bdf address) {
    Slot* const slot = parts_->find(address);
    if (slot == nullptr)
        return no_function(address);
    if (slot->open)
        return fail(ErrorCode::busy, "the function is opened already");
    return std::make_unique<SoftFunction>(*slot);
}

Result<std::unique_ptr<Domain>> SoftMachine::create_domain() {
    MOAT_LET(auto tables, OwnDomain::Tables::create(tables_of_a_domain));
    MOAT_LET(auto table, TranslatingDomain::Table::create(tables->pool()));
    return std::make_unique<OwnDomain>(std::move(tables), std::move(table));
}

Result<void> SoftMachine::attach(Bdf function, Domain& domain) {
    Slot* const slot = parts_->find(function);
    if (slot == nullptr)
        return no_function(function);
    if (slot->attached)
        return fail(ErrorCode::busy, "the function is attached already");
    auto* const own = dynamic_cast<OwnDomain*>(&domain);
    MOAT_CHECK(own != nullptr, "a domain is of the machine that it is attached in");
    auto attached = parts_->iommu.attach(source_of(function), own->inner());
    slot->attached = attached.has_value();
    return attached;
}

Result<void> SoftMachine::detach(Bdf function) {
    Slot* const slot = parts_->find(function);
    if (slot == nullptr)
        return no_function(function);
    slot->attached = false;
    return parts_->iommu.detach(source_of(function));
}

Result<SharedMemory> SoftMachine::allocate(ByteCount size, unsigned alignment_lg2) {
    if (size.value() == 0)
        return fail(ErrorCode::empty, "cannot allocate 0 bytes");
    constexpr std::uint64_t most = std::uint64_t{1} << 40;
    if (size.value() > most || alignment_lg2 > 40)
        return fail(ErrorCode::no_memory, "more memory than a soft machine gives",
                    {"size", size.value()}, {"alignment_lg2", alignment_lg2});
    const std::uint64_t rounded = align_up(size.value(), 12);
    auto mapping =
        platform::Mapping::create(-1, ByteCount(rounded), {.alignment_lg2 = alignment_lg2});
    if (!mapping)
        return fail(ErrorCode::no_memory, "no memory to share", {"size", size.value()});
    const std::span<std::byte> bytes = mapping->bytes();
    const auto physical = reinterpret_cast<std::uintptr_t>(bytes.data());
    const bool is_new = parts_->memory.emplace(physical, std::move(*mapping)).second;
    MOAT_CHECK(is_new, "memory that was just allocated is nobody else's");
    parts_->pieces.emplace(physical, rounded);
    return SharedMemory(*this, bytes, PhysicalAddress(physical));
}

void SoftMachine::release_shared(PhysicalAddress physical, ByteCount /*size*/) {
    parts_->pieces.erase(physical.value());
    parts_->memory.erase(physical.value());
}

Result<std::uint64_t> SoftMachine::take_faults(FunctionRef<void(const fault::Record&)> each) {
    std::uint64_t lost = 0;
    for (const auto& slot : parts_->slots) {
        MOAT_LET(const std::uint64_t here,
                 parts_->iommu.take_faults(source_of(slot->info().address), each));
        lost += here;
    }
    return lost;
}

Wait SoftMachine::wait_until(FunctionRef<bool()> happened, std::chrono::nanoseconds longest) {
    const std::chrono::nanoseconds end = longest < std::chrono::nanoseconds::max() - parts_->now
                                             ? parts_->now + longest
                                             : std::chrono::nanoseconds::max();
    while (!happened()) {
        if (parts_->now >= end)
            return Wait::timed_out;
        bool worked = false;
        for (const auto& slot : parts_->slots)
            worked |= slot->model().step(*slot);
        // If no device has work, waiting changes nothing.
        parts_->now = worked ? parts_->now + step_time : end;
    }
    return Wait::happened;
}

std::chrono::nanoseconds SoftMachine::now() {
    return parts_->now;
}

} // namespace moat::machine::soft
