// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit's drivers on the models of machine/soft: the same drivers that run QEMU's devices.
#include "moat/core/text.hpp"

#include "../machine/soft.hpp"
#include "audit/driver.hpp"
#include "machine/soft/edu.hpp"
#include "machine/soft/nvme.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <string>

namespace moat::tests {

namespace {

using audit::Verdict;
using machine::soft::Mapped;
using machine::soft::Misdeed;

class SoftDevices : public testing::Test, protected audit::BufferSource {
  protected:
    void drive(machine::soft::DeviceModel& model) {
        system = std::make_unique<machine::soft::System>(model);
        auto probed = audit::probe({system->machine(), system->function(), *this});
        ASSERT_TRUE(probed) << probed.error();
        driver = std::move(*probed);
    }

    void TearDown() override {
        driver.reset();
        system.reset();
    }

    Mapped buffer(std::uint64_t bytes, std::string_view what) {
        const std::uint64_t at = next_;
        next_ += bytes + 2 * 4096;
        next_ &= ~std::uint64_t{0xfff};
        return system->map(at, bytes, what);
    }

    Result<audit::Buffer> obtain(const audit::Need& need) override {
        const Mapped made = buffer(need.size.value(), need.what);
        return audit::Buffer{made.iova, made.bytes().first(need.size.value())};
    }

    [[nodiscard]] Verdict run(std::string_view name, Iova data, std::uint64_t length,
                              std::uint64_t position = 0) {
        const auto all = driver->operations();
        const auto found = std::ranges::find(all, name, &audit::Operation::name);
        EXPECT_NE(found, all.end()) << name;
        audit::Request request{.operation = static_cast<unsigned>(found - all.begin()),
                               .data = data,
                               .length = ByteCount(length),
                               .position = position};
        std::vector<audit::Buffer> lists;
        for (const audit::Need& need : driver->lists_for(request))
            lists.push_back(*obtain(need));
        request.lists = lists;
        const auto answer = driver->run(request);
        EXPECT_TRUE(answer) << answer.error();
        return answer ? answer->verdict : Verdict::no_answer;
    }

    machine::soft::Edu edu;
    machine::soft::Nvme nvme;
    std::unique_ptr<machine::soft::System> system;
    std::unique_ptr<audit::Driver> driver;

  private:
    std::uint64_t next_ = 0x100000;
};

TEST_F(SoftDevices, edu_moves_data_for_its_driver) {
    drive(edu);
    if (!driver)
        return;
    constexpr std::uint64_t length = 4080; // what QEMU allows
    const Mapped from = buffer(4096, "from");
    const Mapped to = buffer(4096, "to");
    std::ranges::fill(from.bytes(), std::byte{0x42});
    EXPECT_EQ(run("write", from.iova, length), Verdict::success);
    EXPECT_EQ(run("read", to.iova, length), Verdict::success);
    EXPECT_TRUE(std::ranges::equal(from.bytes().first(length), to.bytes().first(length)));
    EXPECT_TRUE(system->faults().empty());
}

TEST_F(SoftDevices, nvme_does_every_operation_of_its_driver) {
    drive(nvme);
    if (!driver)
        return;
    const Mapped data = buffer(32 * 4096, "data");
    for (const audit::Operation& operation : driver->operations()) {
        SCOPED_TRACE(operation.name);
        const std::uint64_t longest =
            std::min<std::uint64_t>(operation.longest.value(), 16 * std::uint64_t{4096});
        const std::uint64_t length =
            longest / operation.granule.value() * operation.granule.value();
        EXPECT_EQ(run(operation.name, data.iova, length), Verdict::success);
    }
    EXPECT_TRUE(system->faults().empty());
}

TEST_F(SoftDevices, nvme_that_writes_too_much_is_caught_behind_its_driver) {
    drive(nvme);
    if (!driver)
        return;
    const Mapped data = buffer(4096, "health log");
    nvme.misbehave({Misdeed::overrun, 3584});
    EXPECT_EQ(run("health log", data.iova + ByteCount(4096 - 512), 512), Verdict::success);
    const auto faults = system->faults();
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind, fault::Kind::out_of_bounds_right);
    EXPECT_EQ(faults[0].mapping->label, "health log");
    EXPECT_EQ(faults[0].bytes_outside, 3584U);
}

} // namespace

} // namespace moat::tests
