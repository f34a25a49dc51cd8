// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A VT-d unit whose every answer comes from the input: whatever it says, the driver ends, gives
// every table back, and touches no memory but its own.
#include "moat/iommu/vtd.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/serial.hpp"

#include "hostile_registers.hpp"

#include <array>
#include <cstddef>
#include <cstdint>

namespace {

using namespace moat;
using fuzz::HostileRegisters;
using Pool = TablePool<SerialSync>;

using FuzzedUnit = iommu::vtd::Unit<HostileRegisters, Pool, SerialSync>;

template <unsigned Levels>
void use(FuzzedUnit& unit, HostileRegisters& registers) {
    auto domain = iommu::vtd::Domain<FuzzedUnit, Levels>::create(unit);
    if (!domain)
        return;
    const auto requester = static_cast<std::uint16_t>(registers.next());
    const bool attached = (*domain)->attach(requester).has_value();
    for (unsigned i = 0; i != 4; ++i) {
        const Iova start(registers.next());
        const ByteCount size(registers.next());
        (void)(*domain)->map(start, size, PhysicalAddress(0), read_write);
        (void)(*domain)->unmap(start, size);
        auto ignore = [](const fault::Record&) {};
        (void)unit.take_faults(ignore);
    }
    if (attached)
        (void)unit.detach(requester);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    alignas(4096) static std::array<std::byte, 64 * 4096> bytes;
    static std::array<TableHeader, 64> headers;
    Pool pool(bytes, PhysicalAddress(0x100000), headers, 12);
    HostileRegisters registers(data, size);
    const std::uint64_t choice = registers.next();
    iommu::vtd::UnitOptions options = {.coherence = (choice & 1) != 0 ? iommu::Coherence::known
                                                                      : iommu::Coherence::reported};
    if ((choice & 2) != 0)
        options.invalidate_by = (choice & 4) != 0 ? iommu::vtd::InvalidateBy::registers
                                                  : iommu::vtd::InvalidateBy::queue;
    auto unit = FuzzedUnit::open(registers, pool, options);
    if (!unit)
        return 0;
    use<3>(**unit, registers);
    use<4>(**unit, registers);
    use<5>(**unit, registers);
    return 0;
}
