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

#include "machine/soft/device_tlb.hpp"
#include "machine/soft/face.hpp"
#include "platform/memory_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <bitset>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
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

class OwnDomain;

/// A function, and the bus as it sees it.
class Slot final : public BusMaster {
  public:
    /// `now` is the machine's clock, which outlives it.
    Slot(Bdf address, DeviceModel& model, Iommu::Device& device,
         const std::chrono::nanoseconds& now, Ats ats)
        : face_(address, model), device_(device), lane_(device), now_(now) {
        if (ats == Ats::enabled)
            tlb_.emplace();
    }

    [[nodiscard]] Face& face() { return face_; }

    [[nodiscard]] FunctionInfo info() const {
        FunctionInfo info = face_.info();
        info.caches_translations = tlb_.has_value();
        return info;
    }

    /// Null: it caches nothing.
    [[nodiscard]] DeviceTlb* tlb() { return tlb_ ? &*tlb_ : nullptr; }

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        if (!face_.bus_master())
            return {};
        const auto copy = [&](const std::byte* memory, std::uint64_t at, std::uint64_t size) {
            std::memcpy(into.data() + at, memory, size);
        };
        const std::uint64_t done = cached<fault::Access::read>(from, into.size(), copy);
        if (done == into.size())
            return ByteCount(done);
        return ByteCount(done) + lane_.read(from + ByteCount(done), into.subspan(done)).done;
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        if (!face_.bus_master())
            return {};
        const auto copy = [&](std::byte* memory, std::uint64_t at, std::uint64_t size) {
            std::memcpy(memory, from.data() + at, size);
        };
        const std::uint64_t done = cached<fault::Access::write>(to, from.size(), copy);
        if (done == from.size())
            return ByteCount(done);
        return ByteCount(done) + lane_.write(to + ByteCount(done), from.subspan(done)).done;
    }

    void interrupt(unsigned vector) override {
        if (face_.bus_master() && vector < enabled_vectors)
            raised.set(vector);
    }

    [[nodiscard]] std::chrono::nanoseconds now() override { return now_; }

    // For the open function.
    bool open = false;
    bool attached = false;
    OwnDomain* domain = nullptr; ///< if it has a cache
    unsigned enabled_vectors = 0;
    std::bitset<64> raised;

  private:
    /// What the function's own cache serves. Memory that is gone ends it.
    template <fault::Access Kind, class Copy>
    [[nodiscard]] std::uint64_t cached(Iova start, std::uint64_t size, Copy&& copy) {
        if (!tlb_)
            return 0;
        const auto translate = [&](Iova page) {
            const iommu::Lane<Iommu::Device>::Batch batch(lane_);
            return lane_.translate<Kind>(batch, page);
        };
        const auto use = [&](std::byte* memory, std::uint64_t at, std::uint64_t bytes) {
            const PhysicalAddress place(reinterpret_cast<std::uintptr_t>(memory));
            if (device_.memory().find(place, ByteCount(bytes)) == nullptr)
                return false;
            copy(memory, at, bytes);
            return true;
        };
        return tlb_->access(Kind, start, size, translate, use);
    }

    Face face_;
    Iommu::Device& device_;
    iommu::Lane<Iommu::Device> lane_;
    std::optional<DeviceTlb> tlb_;
    const std::chrono::nanoseconds& now_;
};

/// A BAR, or configuration space.
class RegionRegisters final : public Registers {
  public:
    RegionRegisters(Face& face, unsigned region)
        : Registers(face.region(region).size), face_(face), region_(region) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, Width width) override {
        std::array<std::byte, 8> bytes{};
        const bool is_inside = face_.read(region_, offset, part(bytes, width));
        MOAT_CHECK(is_inside, "Registers checks the offset");
        return std::bit_cast<std::uint64_t>(bytes);
    }

    void do_write(std::uint64_t offset, Width width, std::uint64_t value) override {
        auto bytes = std::bit_cast<std::array<std::byte, 8>>(value);
        const bool is_inside = face_.write(region_, offset, part(bytes, width));
        MOAT_CHECK(is_inside, "Registers checks the offset");
    }

    [[nodiscard]] static std::span<std::byte> part(std::span<std::byte> bytes, Width width) {
        return bytes.first(static_cast<std::size_t>(width));
    }

    Face& face_;
    const unsigned region_;
};

class SoftFunction final : public Function {
  public:
    explicit SoftFunction(Slot& slot)
        : Function(slot.info()), slot_(slot), config_(slot.face(), Face::config_region) {
        slot_.open = true;
    }

    ~SoftFunction() override {
        set_bus_master(false);
        slot_.enabled_vectors = 0;
        slot_.open = false;
    }

    [[nodiscard]] Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        if (!slot_.attached)
            return fail(ErrorCode::refused, "interrupts need a domain");
        const unsigned vectors = slot_.face().interrupts(InterruptKind::msix);
        if (vectors == 0)
            return fail(ErrorCode::unsupported, "the function has no interrupts",
                        {"wanted", wanted});
        slot_.enabled_vectors = std::clamp(wanted, 1U, vectors);
        return slot_.enabled_vectors;
    }

    [[nodiscard]] bool take_interrupt(unsigned vector) override {
        if (vector >= slot_.enabled_vectors || !slot_.raised.test(vector))
            return false;
        slot_.raised.reset(vector);
        return true;
    }

    [[nodiscard]] Result<void> reset() override {
        slot_.face().reset();
        slot_.enabled_vectors = 0;
        slot_.raised.reset();
        return {};
    }

  private:
    [[nodiscard]] Result<std::unique_ptr<Registers>> open_bar(unsigned index) override {
        return std::make_unique<RegionRegisters>(slot_.face(), index);
    }

    Slot& slot_;
    RegionRegisters config_;
};

/// Tables, the domain over them, and the caches of its functions.
class OwnDomain final : public ForwardingDomain<TranslatingDomain> {
  public:
    using Tables = OwnedTables<RealSync>;

    OwnDomain(std::unique_ptr<Tables> tables, TranslatingDomain::Table table)
        : ForwardingDomain(domain_), tables_(std::move(tables)), domain_(std::move(table)) {}

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        MOAT_TRY(domain_.unmap(start, size));
        for (DeviceTlb* const each : tlbs)
            each->invalidate(IovaRange(start, size));
        return {};
    }

    [[nodiscard]] Result<void> invalidate_all() override {
        MOAT_TRY(domain_.invalidate_all());
        for (DeviceTlb* const each : tlbs)
            each->invalidate_all();
        return {};
    }

    std::vector<DeviceTlb*> tlbs; ///< to invalidate, after what the IOMMU caches

  private:
    std::unique_ptr<Tables> tables_;
    TranslatingDomain domain_;
};

namespace {

constexpr std::size_t tables_of_a_domain = 1024;

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
    Backing backing = Backing::anonymous;
    std::map<std::uint64_t, platform::MemoryFile> files; ///< by the start of the memory
    Iommu iommu{HostRam(pieces)};
    std::vector<std::unique_ptr<Slot>> slots;
    std::chrono::nanoseconds now{0};
    bool leaves_device_tlbs = false;
};

SoftMachine::SoftMachine(Backing backing) : parts_(std::make_unique<Parts>()) {
    parts_->backing = backing;
}

SoftMachine::~SoftMachine() = default;

void SoftMachine::leave_device_tlbs() {
    parts_->leaves_device_tlbs = true;
}

Result<void> SoftMachine::add(Bdf address, DeviceModel& model, Ats ats) {
    for (const auto& slot : parts_->slots)
        if (slot->open)
            return fail(ErrorCode::busy, "functions are added before any is opened");
    MOAT_LET(Iommu::Device* const device, parts_->iommu.add_device(source_of(address)));
    parts_->slots.push_back(std::make_unique<Slot>(address, model, *device, parts_->now, ats));
    std::ranges::sort(parts_->slots, {}, [](const auto& slot) { return slot->info().address; });
    infos_.clear();
    for (const auto& slot : parts_->slots)
        infos_.push_back(slot->info());
    return {};
}

BusMaster& SoftMachine::bus(Bdf address) {
    Slot* const slot = parts_->find(address);
    MOAT_CHECK(slot != nullptr, "the function was added");
    return *slot;
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
    if (slot->attached && slot->tlb() != nullptr) {
        slot->tlb()->invalidate_all();
        slot->domain = own;
        if (!parts_->leaves_device_tlbs)
            own->tlbs.push_back(slot->tlb());
    }
    return attached;
}

Result<void> SoftMachine::detach(Bdf function) {
    Slot* const slot = parts_->find(function);
    if (slot == nullptr)
        return no_function(function);
    slot->attached = false;
    if (slot->tlb() != nullptr) {
        slot->tlb()->invalidate_all();
        if (auto* const domain = std::exchange(slot->domain, nullptr))
            std::erase(domain->tlbs, slot->tlb());
    }
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
    std::optional<platform::MemoryFile> file;
    if (parts_->backing == Backing::files) {
        MOAT_LET(auto made, platform::MemoryFile::create("moat memory", ByteCount(rounded)));
        file.emplace(std::move(made));
    }
    auto mapping = platform::Mapping::create(file ? file->descriptor() : -1, ByteCount(rounded),
                                             {.alignment_lg2 = alignment_lg2});
    if (!mapping)
        return fail(ErrorCode::no_memory, "no memory to share", {"size", size.value()});
    const std::span<std::byte> bytes = mapping->bytes();
    const auto physical = reinterpret_cast<std::uintptr_t>(bytes.data());
    const bool is_new = parts_->memory.emplace(physical, std::move(*mapping)).second;
    MOAT_CHECK(is_new, "memory that was just allocated is nobody else's");
    parts_->pieces.emplace(physical, rounded);
    if (file)
        parts_->files.emplace(physical, *std::move(file));
    return SharedMemory(*this, bytes, PhysicalAddress(physical));
}

FilePlace SoftMachine::file_of(PhysicalAddress physical) const {
    const auto after = parts_->files.upper_bound(physical.value());
    if (after == parts_->files.begin())
        return {};
    const auto& [start, file] = *std::prev(after);
    return {.descriptor = file.descriptor(), .offset = physical.value() - start};
}

void SoftMachine::release_shared(PhysicalAddress physical, ByteCount /*size*/) {
    parts_->pieces.erase(physical.value());
    parts_->memory.erase(physical.value());
    parts_->files.erase(physical.value());
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
            worked |= slot->face().step(*slot);
        // If no device has work, waiting changes nothing.
        parts_->now = worked ? parts_->now + step_time : end;
    }
    return Wait::happened;
}

std::chrono::nanoseconds SoftMachine::now() {
    return parts_->now;
}

} // namespace moat::machine::soft
