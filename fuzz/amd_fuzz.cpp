// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// An AMD IOMMU whose registers and memory come from the input: whatever it says, the driver ends,
// gives every table back, touches no memory but its own, and decodes every event.
#include "moat/iommu/amd.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/serial.hpp"

#include "hostile_registers.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace {

using namespace moat;
using fuzz::HostileRegisters;
using Pool = TablePool<SerialSync>;

/// Such a unit also writes the word that the driver waits for, so that its commands complete, and
/// events.
class HostileAmd : public HostileRegisters {
  public:
    HostileAmd(Pool& pool, const std::uint8_t* data, std::size_t size)
        : HostileRegisters(data, size), pool_(pool) {}

    void write64(unsigned offset, std::uint64_t value) {
        namespace reg = iommu::amd::reg;
        if (offset == reg::command_buffer)
            commands_ = value & field_mask(51, 12);
        if (offset == reg::event_log)
            events_ = value & field_mask(51, 12);
        if (offset == reg::command_tail && commands_ != 0)
            complete((value + 4096 - 16) % 4096);
    }

    /// Writes events at the start of the log, until the input has a 0.
    void write_events() {
        Word* const words = pool_.words(PhysicalAddress(events_));
        for (std::size_t at = 0; at != 512; ++at) {
            words[at] = next();
            if (words[at] == 0)
                return;
        }
    }

  private:
    /// Not every command.
    void complete(std::uint64_t last) {
        const Word* const wait = pool_.words(PhysicalAddress(commands_)) + last / sizeof(Word);
        if (wait[0] >> 60 == 1 && (next() & 7) != 7)
            *pool_.words(PhysicalAddress(wait[0] & field_mask(51, 3))) = wait[1];
    }

    Pool& pool_;
    std::uint64_t commands_ = 0;
    std::uint64_t events_ = 0;
};

using FuzzedUnit = iommu::amd::Unit<HostileAmd, Pool, SerialSync>;

void use(FuzzedUnit& unit, HostileAmd& registers) {
    auto domain = iommu::amd::Domain<FuzzedUnit>::create(unit);
    if (!domain)
        return;
    const auto requester = static_cast<std::uint16_t>(registers.next());
    const bool caches = unit.serves_device_tlbs();
    const auto tlb = caches ? std::optional(iommu::DeviceTlb{5}) : std::nullopt;
    const bool attached = (*domain)->attach(requester, tlb).has_value();
    for (unsigned i = 0; i != 4; ++i) {
        const Iova start(registers.next());
        const ByteCount size(registers.next());
        (void)(*domain)->map(start, size, PhysicalAddress(0), read_write);
        (void)(*domain)->unmap(start, size);
        registers.write_events();
        unsigned count = 0;
        auto each = [&](const fault::Record& record) {
            ++count;
            if (record.where.empty() != (record.precision == fault::Precision::none))
                __builtin_trap();
        };
        if (unit.take_faults(each) > 1 || count > 255)
            __builtin_trap();
    }
    if (attached)
        (void)unit.detach(requester);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    alignas(4096) static std::array<std::byte, 64 * 4096> bytes;
    static std::array<TableHeader, 64> headers;
    Pool pool(bytes, PhysicalAddress(0x100000), headers, 12);
    HostileAmd registers(pool, data, size);
    const std::uint64_t choice = registers.next();
    auto unit = FuzzedUnit::open(registers, pool,
                                 {.device_bits = 8,
                                  .events_lg2 = 8,
                                  .caches_absent = (choice & 1) != 0,
                                  .serves_device_tlbs = (choice & 2) != 0});
    if (unit)
        use(**unit, registers);
    return 0;
}
