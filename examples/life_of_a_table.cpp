// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Two buffers of a device in an IOMMU's tables, with a guard page between them; a device that
// strays; and what becomes of the tables. Everything here is the library's own code; the IOMMU is
// a translation of each address that the device would put on the bus.
#include "moat/core/text.hpp"
#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <cstddef>
#include <cstdlib>
#include <iostream>

namespace {

using namespace moat;
using namespace moat::literals;

using Vtd = formats::VtdSecondStage<4>;
using Pool = TablePool<RealSync>;
using Types = Tree<Vtd, RealSync, Pool>;

/// Ends the example where something fails that cannot fail here.
void require(const Result<void>& done) {
    if (done)
        return;
    std::cerr << done.error() << '\n';
    std::exit(1);
}

/// One line for each entry that a walk meets.
struct Print {
    void table(Iova, const auto& entry) const {
        std::cout << "  level " << entry.level << " table entry " << hexadecimal(entry.word())
                  << '\n';
    }

    void leaf(Iova start, const auto& leaf) const {
        std::cout << "    " << start << "  " << leaf.size() << " -> " << leaf.physical()
                  << (has(leaf.attributes(), Attributes::write) ? "  read, write\n" : "  read\n");
    }
};

void device_touches(const PageTable<Types>& table, Iova address) {
    const auto found = table.reader().translate(address);
    std::cout << "  the device touches " << address << ": ";
    if (found)
        std::cout << "memory at " << found->physical() << '\n';
    else
        std::cout << "nothing is mapped there; the device faults\n";
}

void guarded_buffers(Pool& pool) {
    auto table = *PageTable<Types>::create(pool);
    auto invalidate = [](const InvalidationRequest<Iova>& request) {
        std::cout << "  invalidate " << request.start << " to " << request.last << '\n';
    };

    std::cout << "Two buffers of 8K, an unmapped page between them, and 2M behind:\n";
    auto edit = table.edit(invalidate);
    require(edit.map(Iova(0x100000), 8_KiB, PhysicalAddress(0x7000000), read_write));
    require(edit.map(Iova(0x103000), 8_KiB, PhysicalAddress(0x9000000), read_only));
    require(edit.map(Iova(0x200000), 2_MiB, PhysicalAddress(0x40000000), read_write));
    edit.finish();
    (void)table.reader().walk(Iova(0), 4_MiB, Print());

    std::cout << "\nInside the first buffer, then one byte past it:\n";
    device_touches(table, Iova(0x101fff));
    device_touches(table, Iova(0x102000));

    std::cout << "\nAn overlap is refused, and says with what:\n";
    const auto overlap = edit.map(Iova(0x102000), 8_KiB, PhysicalAddress(0), read_write);
    std::cout << "  " << overlap.error() << '\n';

    std::cout << "\nA page is taken out of the 2M leaf:\n";
    const auto refused = edit.unmap(Iova(0x280000), 4_KiB);
    std::cout << "  " << refused.error() << '\n';
    const auto done = edit.unmap(Iova(0x280000), 4_KiB, {.partial = PartialLeaf::split});
    std::cout << "  with PartialLeaf::split: " << ByteCount(done->bytes) << " unmapped, "
              << done->split << " leaf split\n";
    edit.finish();
    device_touches(table, Iova(0x27ffff));
    device_touches(table, Iova(0x280000));

    std::cout << "\nEverything goes:\n";
    const auto all = edit.unmap(Iova(0), 1_GiB);
    edit.finish();
    std::cout << "  " << all->leaves << " leaves, " << all->bytes << " bytes\n";
}

} // namespace

int main() {
    constexpr std::size_t tables = 16;
    alignas(4096) static std::array<std::byte, tables * 4096> memory;
    static std::array<TableHeader, tables> headers;
    Pool pool(memory, PhysicalAddress(0x1000000), headers, Vtd::granule_lg2);
    guarded_buffers(pool);
    RealSync::barrier();
    if (pool.units_in_use() != 0)
        return 1;
    std::cout << "  every table was given back\n";
}
