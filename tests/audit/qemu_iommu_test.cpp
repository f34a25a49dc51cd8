// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The same tests behind each of QEMU's IOMMUs: what a device reaches, what stays reachable until an
// invalidation, and what the IOMMU reports. The device is edu, whose memory shows what happened.
#include "moat/core/bits.hpp"

#include "../machine/qemu.hpp"
#include "audit/driver.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

namespace moat::tests {
namespace {

using namespace moat::literals;
using fault::Access;
using fault::Precision;
using fault::Reason;
using machine::qemu::FaultRecords;
using machine::qemu::IommuModel;

struct Tested {
    const char* name;
    IommuModel iommu;
    Reason absent;            ///< the recorded reason where no leaf translates an address
    Reason detached;          ///< and where the function is attached to no domain
    Precision says;           ///< of a record
    bool defers = true;       ///< whether an unmap may be invalidated later
    bool names_access = true; ///< also where no leaf translates an address
    bool records_detached = true;
};

struct NoBuffers final : audit::BufferSource {
    Result<audit::Buffer> obtain(const audit::Need&) override {
        return fail(ErrorCode::no_memory, "edu needs none");
    }
};

class QemuIommuTest : public QemuTest, public ::testing::WithParamInterface<Tested> {
  protected:
    static constexpr std::uint64_t length = 64;
    static constexpr Iova at{0x5000};

    void SetUp() override {
        start({.iommu = GetParam().iommu,
               .devices = {"edu,addr=4,dma_mask=0xffffffffffffffff",
                           "edu,addr=5,dma_mask=0xffffffffffffffff"},
               .smmuv3 = {.stream_bits = 12, .events_lg2 = 4}});
        if (!machine)
            return;
        edu = find(0x1234, 0x11e8);
        function_ = *machine->open(edu);
        NoBuffers none;
        driver_ = *audit::start_edu({*machine, *function_, none});
        domain = *machine->create_domain();
        ASSERT_TRUE(machine->attach(edu, *domain));
        attached_ = true;
        memory.emplace(*machine->allocate(8_KiB));
    }

    void TearDown() override {
        driver_.reset();
        function_.reset();
        if (attached_)
            detach();
        domain.reset();
        memory.reset();
    }

    void detach() {
        ASSERT_TRUE(machine->detach(edu));
        attached_ = false;
    }

    /// Both pages, or the second alone; each by itself, since not every IOMMU can unmap a part.
    void map(Iova start, ByteCount size, Attributes attributes = read_write) {
        const ByteCount page = 4_KiB;
        const PhysicalAddress end = memory->physical() + memory->size();
        for (ByteCount done{0}; done != size; done += page)
            ASSERT_TRUE(domain->map(start + done, page,
                                    PhysicalAddress(end.value() - (size - done).value()),
                                    attributes));
    }

    /// What edu reads or writes; it never reports a failure.
    void access(Access what, Iova where, std::uint64_t bytes = length) {
        const auto answer = driver_->run({.operation = what == Access::write ? 1U : 0U,
                                          .data = where,
                                          .length = ByteCount(bytes)});
        ASSERT_TRUE(answer) << answer.error();
        ASSERT_EQ(answer->verdict, audit::Verdict::success);
    }

    /// How many of the memory's bytes the device changes by a write.
    [[nodiscard]] std::ptrdiff_t written_by(Iova where, std::uint64_t bytes = length) {
        std::ranges::fill(memory->bytes(), std::byte{0x11});
        access(Access::write, where, bytes);
        return std::ranges::count_if(memory->bytes(),
                                     [](auto each) { return each != std::byte{0x11}; });
    }

    /// Where no leaf translates the address.
    void expect_absent(Access what, IovaRange where) {
        expect_one(GetParam().names_access ? what : Access::unknown, where, GetParam().absent);
    }

    void expect_one(Access what, IovaRange where, Reason reason) {
        const auto seen = faults();
        expect_records(seen, 1);
        for (const fault::Record& each : seen) {
            EXPECT_EQ(each.access, what);
            EXPECT_EQ(each.reason, reason);
            EXPECT_EQ(each.source, fault::Source::requester(edu.requester()));
        }
        if (machine->fault_records() != FaultRecords::complete || seen.empty())
            return;
        EXPECT_EQ(seen[0].precision, GetParam().says);
        EXPECT_TRUE(seen[0].where.contains(where.start()));
        EXPECT_EQ(seen[0].where, GetParam().says == Precision::exact ? where : seen[0].where);
    }

    /// One record, or as many as an IOMMU makes that does not record addresses.
    void expect_blocked(std::size_t blocked = 1) { expect_records(faults(), blocked); }

    machine::Bdf edu;
    std::unique_ptr<machine::Domain> domain;
    std::optional<machine::SharedMemory> memory;

  private:
    void expect_records(const std::vector<fault::Record>& seen, std::size_t blocked) const {
        switch (machine->fault_records()) {
        case FaultRecords::complete:
            EXPECT_EQ(seen.size(), blocked);
            break;
        case FaultRecords::without_address:
            EXPECT_EQ(seen.empty(), blocked == 0);
            for (const fault::Record& each : seen)
                EXPECT_EQ(each.precision, Precision::none);
            break;
        case FaultRecords::none:
            EXPECT_TRUE(seen.empty());
        }
    }

    bool attached_ = false;
    std::unique_ptr<machine::Function> function_;
    std::unique_ptr<audit::Driver> driver_;
};

TEST_P(QemuIommuTest, device_reaches_what_is_mapped) {
    if (!machine)
        return;
    map(at, 8_KiB);
    EXPECT_EQ(written_by(Iova(0x5fe0)), 64) << "across two pages";
    EXPECT_EQ(memory->bytes()[0xfdf], std::byte{0x11});
    EXPECT_NE(memory->bytes()[0xfe0], std::byte{0x11});
    EXPECT_TRUE(faults().empty());
    ASSERT_TRUE(domain->unmap(at, 8_KiB));
}

TEST_P(QemuIommuTest, overrun_is_blocked_and_attributed) {
    if (!machine)
        return;
    map(at, 4_KiB);
    EXPECT_EQ(written_by(Iova(0x5fe0)), 32) << "the bytes before the guard";
    expect_absent(Access::write, IovaRange(Iova(0x6000), 32_B));
    access(Access::read, Iova(0x5ff4));
    expect_absent(Access::read, IovaRange(Iova(0x6000), 52_B));
}

TEST_P(QemuIommuTest, unmapped_page_is_blocked) {
    if (!machine)
        return;
    map(at, 8_KiB);
    EXPECT_EQ(written_by(at), 64);
    const std::uint64_t before = machine->qtest().round_trips();
    ASSERT_TRUE(domain->unmap(at, 4_KiB));
    EXPECT_EQ(machine->qtest().round_trips(), before + 1);
    EXPECT_EQ(written_by(at), 0);
    expect_absent(Access::write, IovaRange(at, 64_B));
    EXPECT_EQ(written_by(Iova(0x6000)), 64) << "the other page stays";
}

TEST_P(QemuIommuTest, translation_is_stale_until_invalidated) {
    if (!machine)
        return;
    map(at, 8_KiB);
    EXPECT_EQ(written_by(at), 64);
    ASSERT_TRUE(domain->unmap_deferred(at, 4_KiB));
    EXPECT_EQ(written_by(at), GetParam().defers ? 64 : 0)
        << "without an invalidation it is reachable still";
    expect_blocked(GetParam().defers ? 0 : 1);
    ASSERT_TRUE(domain->invalidate_all());
    EXPECT_EQ(written_by(at), 0);
    expect_blocked();
}

TEST_P(QemuIommuTest, read_only_page_cannot_be_written) {
    if (!machine)
        return;
    map(at, 8_KiB, read_only);
    EXPECT_EQ(written_by(at), 0);
    expect_one(Access::write, IovaRange(at, 64_B), Reason::permission);
    access(Access::read, at);
    EXPECT_TRUE(faults().empty());
}

TEST_P(QemuIommuTest, detached_device_reaches_nothing) {
    if (!machine)
        return;
    map(at, 8_KiB);
    EXPECT_EQ(written_by(at), 64);
    detach();
    EXPECT_EQ(written_by(at), 0);
    const auto seen = faults();
    ASSERT_EQ(seen.empty(), !GetParam().records_detached);
    for (const fault::Record& each : seen) {
        // QEMU 11.1's virtio-iommu forgets a detached endpoint, and gives no reason.
        const bool is_forgotten =
            GetParam().iommu == IommuModel::virtio && each.reason == Reason::unknown;
        EXPECT_TRUE(each.reason == GetParam().detached || is_forgotten) << name(each.reason);
    }
}

using CountingIommuTest = QemuIommuTest;

/// The queue of VT-d has one record, that of the SMMU 16.
TEST_P(CountingIommuTest, lost_faults_are_counted_until_they_were_reported) {
    if (!machine)
        return;
    const machine::Bdf second(0, 5, 0);
    ASSERT_TRUE(machine->attach(second, *domain));
    {
        const auto function = *machine->open(second);
        NoBuffers none;
        const auto driver = *audit::start_edu({*machine, *function, none});
        access(Access::write, at);
        ASSERT_TRUE(driver->run({.operation = 1, .data = at, .length = ByteCount(length)}));
        unsigned records = 0;
        auto count = [&](const fault::Record&) { ++records; };
        EXPECT_EQ(machine->take_faults(count), 1U);
        EXPECT_EQ(records, 1U);
        EXPECT_EQ(machine->take_faults(count), 0U);
        EXPECT_EQ(records, 1U);
        ASSERT_TRUE(driver->run({.operation = 1, .data = at, .length = ByteCount(length)}));
        const auto seen = faults();
        ASSERT_EQ(seen.size(), 1U);
        EXPECT_EQ(seen[0].source, fault::Source::requester(second.requester()));
    }
    EXPECT_TRUE(machine->detach(second));
}

TEST_P(QemuIommuTest, large_leaf_translates) {
    if (!machine)
        return;
    const auto large = *machine->allocate(4_MiB, 21);
    std::ranges::fill(large.bytes(), std::byte{0x11});
    ASSERT_TRUE(domain->map(Iova(0x40000000), 4_MiB, large.physical(), read_write));
    access(Access::write, Iova(0x40345678));
    EXPECT_EQ(std::ranges::count(large.bytes(), std::byte{0x11}), (4 << 20) - 64);
    EXPECT_NE(large.bytes()[0x345678], std::byte{0x11});
    ASSERT_TRUE(domain->unmap(Iova(0x40000000), 4_MiB));
    const std::vector<std::byte> before(large.bytes().begin(), large.bytes().end());
    access(Access::write, Iova(0x40345678));
    EXPECT_TRUE(std::ranges::equal(large.bytes(), before));
    expect_blocked();
}

using SilentIommuTest = QemuIommuTest;

/// The device writes back what it read: without records, nothing else shows that a read was
/// blocked.
TEST_P(SilentIommuTest, blocked_read_returns_no_data) {
    if (!machine)
        return;
    constexpr std::byte secret{0x77};
    map(at, 8_KiB);
    const auto returned_by = [&](Iova where) {
        std::ranges::fill(memory->bytes(), secret);
        access(Access::read, where);
        std::ranges::fill(memory->bytes(), std::byte{0x11});
        access(Access::write, at);
        return std::ranges::count(memory->bytes(), secret);
    };
    EXPECT_EQ(returned_by(Iova(0x6000)), 64);
    access(Access::read, at); // overwrites what the device has
    ASSERT_TRUE(domain->unmap(Iova(0x6000), 4_KiB));
    EXPECT_EQ(returned_by(Iova(0x6000)), 0);
}

/// AMD's leaves have any power of two of pages; those between the levels repeat an entry.
TEST_P(SilentIommuTest, leaf_of_each_kind_translates) {
    if (!machine)
        return;
    const auto large = *machine->allocate(16_MiB, 24);
    for (const unsigned size_lg2 : {13U, 20U, 24U}) {
        SCOPED_TRACE(size_lg2);
        const ByteCount size(bit(size_lg2));
        std::ranges::fill(large.bytes(), std::byte{0x11});
        ASSERT_TRUE(domain->map(Iova(0x40000000), size, large.physical(), read_write));
        const std::uint64_t last = size.value() - length;
        access(Access::write, Iova(0x40000000 + last));
        EXPECT_EQ(std::ranges::count(large.bytes(), std::byte{0x11}), (16 << 20) - 64);
        EXPECT_NE(large.bytes()[last], std::byte{0x11});
        ASSERT_TRUE(domain->unmap(Iova(0x40000000), size));
    }
}

class QemuWithoutIommuTest : public QemuTest {};

TEST_F(QemuWithoutIommuTest, addresses_are_physical_and_nothing_is_bounded) {
    start({.iommu = IommuModel::none, .devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"}});
    if (!machine)
        return;
    const machine::Bdf edu = find(0x1234, 0x11e8);
    const auto domain = *machine->create_domain();
    const auto memory = *machine->allocate(4_KiB);
    EXPECT_EQ(domain->map(Iova(0x5000), 4_KiB, memory.physical(), read_write).error().code(),
              ErrorCode::unsupported);
    const Iova where(memory.physical().value());
    EXPECT_TRUE(domain->map(where, 4_KiB, memory.physical(), read_only));
    EXPECT_TRUE(domain->unmap(where, 4_KiB));
    EXPECT_EQ(
        domain->map(Iova(bit(40)), 4_KiB, PhysicalAddress(bit(40)), read_write).error().code(),
        ErrorCode::out_of_range);
    ASSERT_TRUE(machine->attach(edu, *domain));
    {
        const auto function = *machine->open(edu);
        NoBuffers none;
        const auto driver = *audit::start_edu({*machine, *function, none});
        std::ranges::fill(memory.bytes(), std::byte{0x11});
        ASSERT_TRUE(driver->run({.operation = 1, .data = where, .length = 64_B}));
        EXPECT_EQ(std::ranges::count(memory.bytes(), std::byte{0x11}), 4096 - 64);
    }
    EXPECT_TRUE(faults().empty());
    EXPECT_TRUE(machine->detach(edu));
}

constexpr Tested intel = {"intel", IommuModel::intel, Reason::permission, Reason::not_attached,
                          Precision::page};
constexpr Tested amd = {.name = "amd",
                        .iommu = IommuModel::amd,
                        .absent = Reason::permission,
                        .detached = Reason::unknown,
                        .says = Precision::none,
                        .records_detached = false};
constexpr Tested smmuv3 = {"smmuv3", IommuModel::smmuv3, Reason::not_present, Reason::not_attached,
                           Precision::exact};
constexpr Tested virtio = {
    "virtio", IommuModel::virtio, Reason::permission, Reason::not_attached, Precision::exact, false,
    false};

constexpr auto name_of = [](const auto& tested) { return std::string(tested.param.name); };

INSTANTIATE_TEST_SUITE_P(Qemu, QemuIommuTest, ::testing::Values(intel, amd, smmuv3, virtio),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Qemu, SilentIommuTest, ::testing::Values(amd), name_of);
INSTANTIATE_TEST_SUITE_P(Qemu, CountingIommuTest, ::testing::Values(intel, smmuv3), name_of);

} // namespace
} // namespace moat::tests
