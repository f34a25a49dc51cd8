// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VT-d second-stage tables, walked by QEMU's unit for a device's DMA: memory shows the accesses
// that succeeded, the unit's fault records those that failed.
#include "../machine/qemu.hpp"
#include "audit/driver.hpp"

#include <array>
#include <cstring>
#include <string>

namespace moat::tests {
namespace {

using namespace moat::literals;
using iommu::vtd::InvalidateBy;
using machine::qemu::VtdIommu;

struct NoBuffers final : audit::BufferSource {
    Result<audit::Buffer> obtain(const audit::Need&) override {
        return fail(ErrorCode::no_memory, "edu needs none");
    }
};

class VtdWitnessTest : public QemuTest, public ::testing::WithParamInterface<InvalidateBy> {
  protected:
    static constexpr std::size_t bytes = 64;
    /// The target of all mappings, in the machine's memory: aligned for leaves of 2M.
    static constexpr std::uint64_t memory = 0x4000000;

    void SetUp() override {
        start({.devices = {"edu,addr=4,dma_mask=0xffffffffffffffff"},
               .vtd = {.invalidate_by = GetParam(), .coherence = iommu::Coherence::known}});
        if (IsSkipped() || HasFatalFailure())
            return;
        requester_ = find(0x1234, 0x11e8);
        function_ = *machine->open(requester_);
        NoBuffers none;
        edu_ = *audit::start_edu({*machine, *function_, none});
        domain = *VtdIommu::UnitDomain::create(unit());
    }

    void TearDown() override {
        edu_.reset();
        function_.reset();
    }

    void attach() {
        ASSERT_TRUE(domain->attach(requester_.requester()));
        load_pattern();
    }

    /// The bytes that edu writes from then on.
    void load_pattern() {
        constexpr Iova at(0x100000000000);
        ASSERT_TRUE(domain->map(at, 4_KiB, PhysicalAddress(memory), read_only));
        for (std::size_t i = 0; i != bytes; ++i)
            physical(memory)[i] = static_cast<std::byte>(0xa0 + i % 16);
        run(0, at.value());
        ASSERT_TRUE(faults().empty());
        ASSERT_TRUE(domain->unmap(at, 4_KiB));
        std::memset(physical(memory), 0, bytes);
    }

    [[nodiscard]] std::byte* physical(std::uint64_t address) const {
        return machine->ram().data() + address;
    }

    void run(unsigned operation, std::uint64_t iova) {
        const auto answer =
            edu_->run({.operation = operation, .data = Iova(iova), .length = ByteCount(bytes)});
        ASSERT_TRUE(answer) << answer.error();
        ASSERT_EQ(answer->verdict, audit::Verdict::success);
    }

    /// The device's write to `iova` arrives at `expected`.
    ::testing::AssertionResult writes_to(std::uint64_t iova, std::uint64_t expected) {
        std::memset(physical(expected), 0, bytes);
        run(1, iova);
        if (const auto refused = faults(); !refused.empty())
            return ::testing::AssertionFailure() << "refused at " << refused[0].where;
        for (std::size_t i = 0; i != bytes; ++i)
            if (physical(expected)[i] != static_cast<std::byte>(0xa0 + i % 16))
                return ::testing::AssertionFailure() << "byte " << i << " did not arrive";
        return ::testing::AssertionSuccess();
    }

    /// The device's access is refused, and `untouched` is unchanged.
    ::testing::AssertionResult is_refused(fault::Access access, std::uint64_t iova,
                                          std::uint64_t untouched) {
        std::memset(physical(untouched), 0x11, bytes);
        run(access == fault::Access::write ? 1 : 0, iova);
        for (std::size_t i = 0; i != bytes; ++i)
            if (physical(untouched)[i] != std::byte{0x11})
                return ::testing::AssertionFailure() << "byte " << i << " was written";
        const auto refused = faults();
        if (access == fault::Access::read)
            load_pattern(); // the failed read left its buffer, which replaced the pattern
        if (refused.size() != 1 || refused[0].access != access ||
            refused[0].reason != fault::Reason::permission ||
            !refused[0].where.contains(Iova(iova)) ||
            refused[0].source != fault::Source::requester(requester_.requester()))
            return ::testing::AssertionFailure() << refused.size() << " faults, not the one";
        return ::testing::AssertionSuccess();
    }

    [[nodiscard]] unsigned leaf_lg2(std::uint64_t iova) const {
        return domain->reader().translate(Iova(iova))->leaf_lg2();
    }

    [[nodiscard]] VtdIommu::Unit& unit() {
        return dynamic_cast<VtdIommu&>(machine->iommu()).unit();
    }

    machine::Bdf requester_;
    std::unique_ptr<VtdIommu::UnitDomain> domain;

  private:
    std::unique_ptr<machine::Function> function_;
    std::unique_ptr<audit::Driver> edu_;

  protected:
    void detach() { ASSERT_TRUE(unit().detach(requester_.requester())); }
};

TEST_P(VtdWitnessTest, leaves_of_every_size) {
    if (!machine)
        return;
    attach();
    ASSERT_TRUE(domain->map(Iova(0x1000), 4_KiB, PhysicalAddress(memory), read_write));
    ASSERT_TRUE(domain->map(Iova(0x200000), 2_MiB, PhysicalAddress(memory), read_write));
    ASSERT_TRUE(domain->map(Iova(0x40000000), 1_GiB, PhysicalAddress(0), read_write));
    EXPECT_EQ(leaf_lg2(0x1000), 12U);
    EXPECT_EQ(leaf_lg2(0x200000), 21U);
    EXPECT_EQ(leaf_lg2(0x40000000), 30U);
    EXPECT_TRUE(writes_to(0x1fc0, memory + 0xfc0));
    EXPECT_TRUE(is_refused(fault::Access::write, 0x2000, memory + 0x1000));
    EXPECT_TRUE(writes_to(0x321040, memory + 0x121040));
    EXPECT_TRUE(is_refused(fault::Access::read, 0x400000, memory + 0x200000));
    EXPECT_TRUE(writes_to(0x40000000 + memory + 0x654321, memory + 0x654321));
    EXPECT_TRUE(is_refused(fault::Access::write, 0x3fffffc0, memory));
    detach();
}

TEST_P(VtdWitnessTest, permissions_hold) {
    if (!machine)
        return;
    attach();
    ASSERT_TRUE(domain->map(Iova(0x1000), 4_KiB, PhysicalAddress(memory), read_only));
    ASSERT_TRUE(domain->map(Iova(0x2000), 4_KiB, PhysicalAddress(memory), Attributes::write));
    // Refused accesses come first: if the IOTLB holds a leaf, QEMU refuses without a record.
    EXPECT_TRUE(is_refused(fault::Access::write, 0x1000, memory));
    EXPECT_TRUE(is_refused(fault::Access::read, 0x2000, memory));
    EXPECT_TRUE(writes_to(0x2000, memory));
    run(0, 0x1000);
    EXPECT_TRUE(faults().empty());
    detach();
}

TEST_P(VtdWitnessTest, leaf_splits_and_folds) {
    if (!machine)
        return;
    attach();
    constexpr Iova hole(0x280000);
    ASSERT_TRUE(domain->map(Iova(0x200000), 2_MiB, PhysicalAddress(memory), read_write));
    EXPECT_TRUE(writes_to(0x280000, memory + 0x80000));
    ASSERT_TRUE(domain->unmap(hole, 4_KiB));
    EXPECT_EQ(leaf_lg2(0x27f000), 12U);
    EXPECT_TRUE(is_refused(fault::Access::write, 0x280000, memory + 0x80000));
    EXPECT_TRUE(writes_to(0x27ffc0, memory + 0x7ffc0));
    EXPECT_TRUE(writes_to(0x281000, memory + 0x81000));
    ASSERT_TRUE(domain->map(hole, 4_KiB, PhysicalAddress(memory + 0x80000), read_write));
    ASSERT_TRUE(domain->edit([](auto& open) { return open.fold(Iova(0x200000), 2_MiB); }));
    EXPECT_EQ(leaf_lg2(0x280000), 21U);
    EXPECT_TRUE(writes_to(0x280fc0, memory + 0x80fc0));
    ASSERT_TRUE(domain->unmap(Iova(0x200000), 2_MiB));
    EXPECT_TRUE(is_refused(fault::Access::write, 0x280fc0, memory + 0x80fc0));
    detach();
}

TEST_P(VtdWitnessTest, translation_is_stale_until_invalidated) {
    if (!machine)
        return;
    attach();
    detach();
    // Tables without hardware, whose invalidations have no effect.
    using Types = VtdIommu::UnitDomain::Types;
    auto table = *PageTable<Types>::create(unit().memory());
    constexpr std::uint16_t number = 99;
    ASSERT_TRUE(unit().attach(requester_.requester(), table.root(), number));
    auto nothing = [](const InvalidationRequest<Iova>&) {};
    auto edit = table.edit(nothing);
    ASSERT_TRUE(edit.map(Iova(0x1000), 4_KiB, PhysicalAddress(memory), read_write));
    EXPECT_TRUE(writes_to(0x1000, memory));
    ASSERT_TRUE(edit.unmap(Iova(0x1000), 4_KiB));
    edit.finish();
    EXPECT_TRUE(writes_to(0x1000, memory)) << "without an invalidation it is reachable still";
    const InvalidationRequest<Iova> request = {.start = Iova(0x1000), .last = Iova(0x1fff)};
    ASSERT_TRUE(unit().invalidate(number, {&request, 1}));
    EXPECT_TRUE(is_refused(fault::Access::write, 0x1000, memory));
    detach();
    ASSERT_TRUE(domain->attach(requester_.requester()));
    ASSERT_TRUE(domain->map(Iova(0x1000), 4_KiB, PhysicalAddress(memory), read_write));
    EXPECT_TRUE(writes_to(0x1000, memory));
    ASSERT_TRUE(domain->unmap(Iova(0x1000), 4_KiB));
    EXPECT_TRUE(is_refused(fault::Access::write, 0x1000, memory)) << "the API invalidates";
    detach();
}

TEST_P(VtdWitnessTest, detached_device_reaches_nothing) {
    if (!machine)
        return;
    attach();
    ASSERT_TRUE(domain->map(Iova(0x1000), 4_KiB, PhysicalAddress(memory), read_write));
    EXPECT_TRUE(writes_to(0x1000, memory));
    detach();
    run(1, 0x1000);
    const auto refused = faults();
    ASSERT_EQ(refused.size(), 1U);
    EXPECT_EQ(refused[0].reason, fault::Reason::not_attached);
}

INSTANTIATE_TEST_SUITE_P(Qemu, VtdWitnessTest,
                         ::testing::Values(InvalidateBy::queue, InvalidateBy::registers),
                         [](const auto& tested) {
                             return tested.param == InvalidateBy::queue ? "queue" : "registers";
                         });

} // namespace
} // namespace moat::tests
