// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The soft machine's bus, memory and clock, and its domains over the software IOMMU.
#include "machine/soft/soft_machine.hpp"

#include "moat/core/bits.hpp"
#include "moat/page_table/owned_tables.hpp"

#include "platform/memory_file.hpp"
#include "platform/try.hpp"
#include "soft_function.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace moat::machine::soft {

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
    parts_->slots.push_back(std::make_unique<Slot>(address, model, *device));
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
