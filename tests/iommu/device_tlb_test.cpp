// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A function that caches translations, behind each unit that serves it: its stale access is there
// until the domain invalidates the cache, and gone after that.
#include "fake_amd.hpp"
#include "fake_smmuv3.hpp"
#include "fake_vtd.hpp"
#include "unit_memory.hpp"

#include <bit>
#include <cstddef>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <set>

namespace moat::tests {
namespace {

using namespace moat::literals;

/// What a command invalidates.
struct Forgets {
    bool in_function; ///< or in the unit
    IovaRange where;
};

/// `lowest_clear`: the lowest clear bit of the address, n, says that the block has 2^(n + 1) bytes.
IovaRange block_of(std::uint64_t operand, bool lowest_clear) {
    const std::uint64_t start = operand & ~low_bits(12);
    if (!lowest_clear)
        return {Iova(start), 4_KiB};
    const auto bits = static_cast<unsigned>(std::countr_one(start | low_bits(12))) + 1;
    return bits >= 64 ? IovaRange(Iova(0), ByteCount(~std::uint64_t{0}))
                      : IovaRange(Iova(align_down(start, bits)), ByteCount(bit(bits)));
}

constexpr IovaRange whole{Iova(0), ByteCount(~std::uint64_t{0})};

struct OfVtd {
    using Registers = FakeVtd;
    using Domain = iommu::vtd::Domain<iommu::vtd::Unit<FakeVtd, Pool, RealSync>, 4>;

    static auto open(Registers& registers, Pool& pool, bool invalidates) {
        registers.values[iommu::vtd::reg::extended_capability] |= bit(2);
        return Domain::Unit::open(registers, pool, {.invalidates_device_tlbs = invalidates});
    }

    static auto& commands(Registers& registers) { return registers.by_queue; }

    static std::optional<Forgets> decode(const FakeVtd::Asked& command) {
        switch (command.low & 0xf) {
        case 2:
            return Forgets{false, whole};
        case 3:
            return Forgets{true, block_of(command.high, (command.high & 1) != 0)};
        default:
            return std::nullopt;
        }
    }
};

struct OfAmd {
    using Registers = FakeAmd;
    using Domain = iommu::amd::Domain<iommu::amd::Unit<FakeAmd, FakeAmd::Pool, RealSync>>;

    static auto open(Registers& registers, FakeAmd::Pool& pool, bool invalidates) {
        return Domain::Unit::open(registers, pool,
                                  {.device_bits = 8,
                                   .events_lg2 = 8,
                                   .caches_absent = false,
                                   .serves_device_tlbs = true,
                                   .invalidates_device_tlbs = invalidates});
    }

    static auto& commands(Registers& registers) { return registers.commands; }

    static std::optional<Forgets> decode(const iommu::amd::Command& command) {
        switch (command[0] >> 60) {
        case 3:
            return Forgets{false, whole};
        case 4:
            return Forgets{true, block_of(command[1], (command[1] & 1) != 0)};
        default:
            return std::nullopt;
        }
    }
};

struct OfSmmuv3 {
    using Registers = FakeSmmuv3;
    using Domain =
        iommu::smmuv3::Domain<iommu::smmuv3::Unit<FakeSmmuv3, FakeSmmuv3::Pool, RealSync>>;

    static auto open(Registers& registers, FakeSmmuv3::Pool& pool, bool invalidates) {
        registers.values[iommu::smmuv3::reg::idr0] |= 1U << 10;
        return Domain::Unit::open(
            registers, pool,
            {.stream_bits = 8, .events_lg2 = 4, .invalidates_device_tlbs = invalidates});
    }

    static auto& commands(Registers& registers) { return registers.commands; }

    static std::optional<Forgets> decode(const iommu::smmuv3::Command& command) {
        switch (command[0] & 0xff) {
        case 0x11:
        case 0x12:
            return Forgets{false, whole};
        case 0x40: {
            const unsigned size_lg2 = 12 + (command[1] & 0x3f);
            return Forgets{true, size_lg2 >= 64 ? whole
                                                : IovaRange(Iova(command[1] & ~low_bits(12)),
                                                            ByteCount(bit(size_lg2)))};
        }
        default:
            return std::nullopt;
        }
    }
};

/// One function of pages, which asks the unit for what it lacks. The unit caches too, and executes
/// a batch's commands in an order that is free: the last one first.
template <class Of>
class CachingFunctions : public ::testing::Test {
  protected:
    static constexpr std::uint16_t requester = 0x23;
    static constexpr std::uint64_t first = 0x8000;
    static constexpr std::uint64_t second = 0x9000;

    void open(bool invalidates) {
        auto opened = Of::open(registers_, memory_.pool, invalidates);
        ASSERT_TRUE(opened) << opened.error();
        unit_ = std::move(*opened);
        auto created = Of::Domain::create(*unit_);
        ASSERT_TRUE(created) << created.error();
        domain = std::move(*created);
        ASSERT_TRUE(domain->attach(requester, iommu::DeviceTlb{}));
        attached_ = true;
        for (const std::uint64_t page : {first, second})
            ASSERT_TRUE(domain->map(Iova(page), 4_KiB, PhysicalAddress(page), read_write));
        Of::commands(registers_).clear();
        registers_.completed = [this] { complete(); };
    }

    void TearDown() override {
        if (attached_)
            detach();
    }

    void detach() {
        attached_ = false;
        ASSERT_TRUE(unit_->detach(requester));
    }

    [[nodiscard]] bool reaches(std::uint64_t page) {
        if (in_function_.contains(page))
            return true;
        if (!attached_ || (!in_unit_.contains(page) && !domain->reader().translate(Iova(page))))
            return false;
        in_unit_.insert(page);
        in_function_.insert(page);
        return true;
    }

  private:
    /// The function goes on meanwhile.
    void complete() {
        auto& commands = Of::commands(registers_);
        for (; !commands.empty(); commands.pop_back()) {
            if (const auto forgets = Of::decode(commands.back()))
                std::erase_if(
                    forgets->in_function ? in_function_ : in_unit_,
                    [&](std::uint64_t page) { return forgets->where.contains(Iova(page)); });
            for (const std::uint64_t page : {first, second})
                (void)reaches(page);
        }
    }

    UnitMemory memory_;
    typename Of::Registers registers_{memory_.pool};
    std::unique_ptr<typename Of::Domain::Unit> unit_;
    std::set<std::uint64_t> in_function_;
    std::set<std::uint64_t> in_unit_;
    bool attached_ = false;

  protected:
    std::unique_ptr<typename Of::Domain> domain;
};

using Served = ::testing::Types<OfVtd, OfAmd, OfSmmuv3>;
TYPED_TEST_SUITE(CachingFunctions, Served);

TYPED_TEST(CachingFunctions, reach_unmapped_pages_if_their_cache_is_left) {
    this->open(false);
    ASSERT_TRUE(this->reaches(this->first));
    ASSERT_TRUE(this->domain->unmap(Iova(this->first), 4_KiB));
    EXPECT_TRUE(this->reaches(this->first));
}

TYPED_TEST(CachingFunctions, reach_no_unmapped_page_once_their_cache_is_invalidated) {
    this->open(true);
    ASSERT_TRUE(this->reaches(this->first));
    ASSERT_TRUE(this->reaches(this->second));
    ASSERT_TRUE(this->domain->unmap(Iova(this->first), 4_KiB));
    EXPECT_FALSE(this->reaches(this->first));
    EXPECT_TRUE(this->reaches(this->second));
}

TYPED_TEST(CachingFunctions, keep_translations_until_a_deferred_invalidation) {
    this->open(true);
    ASSERT_TRUE(this->reaches(this->first));
    ASSERT_TRUE(this->domain->unmap_deferred(Iova(this->first), 4_KiB));
    EXPECT_TRUE(this->reaches(this->first));
    ASSERT_TRUE(this->domain->invalidate_all());
    EXPECT_FALSE(this->reaches(this->first));
}

TYPED_TEST(CachingFunctions, reach_nothing_once_they_are_detached) {
    this->open(true);
    ASSERT_TRUE(this->reaches(this->first));
    this->detach();
    EXPECT_FALSE(this->reaches(this->first));
}

} // namespace
} // namespace moat::tests
