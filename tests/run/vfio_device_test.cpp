// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device's file of the state machine: regions, interrupts, resets. tests/vm compares the rest of
// the answers with Linux; here is what the lab's devices lack, and which effects there are.
#include "vfio_caller.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

constexpr std::uint32_t data_none = VFIO_IRQ_SET_DATA_NONE;
constexpr std::uint32_t data_bool = VFIO_IRQ_SET_DATA_BOOL;
constexpr std::uint32_t data_eventfd = VFIO_IRQ_SET_DATA_EVENTFD;
constexpr std::uint32_t act_trigger = VFIO_IRQ_SET_ACTION_TRIGGER;

class DeviceTest : public ::testing::Test {
  protected:
    void SetUp() override {
        caller.make_container();
        device = static_cast<int>(caller.device_file(caller.group, "0000:05:00.0"));
        ASSERT_GT(device, 0);
    }

    std::int64_t interrupts(std::uint32_t flags, std::uint32_t kind, std::uint32_t start,
                            std::uint32_t count, std::array<std::int32_t, 4> values = {}) {
        struct {
            std::array<std::uint32_t, 5> head;
            std::array<std::int32_t, 4> values;
        } set{{sizeof set, flags, kind, start, count}, values};

        return caller.call(device, VFIO_DEVICE_SET_IRQS, set);
    }

    /// The eventfd of an MSI-X vector; 0: none.
    int bound(unsigned vector) {
        const auto found =
            caller.program.eventfds.find({0, machine::soft::InterruptKind::msix, vector});
        return found != caller.program.eventfds.end() ? found->second : 0;
    }

    VfioCaller caller;
    int device = -1;
};

TEST_F(DeviceTest, vectors_get_their_eventfds_and_lose_them) {
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 2, 1, 3, {1000, -1, 1002}), 0);
    EXPECT_EQ(bound(1), 1000);
    EXPECT_EQ(bound(2), 0);
    EXPECT_EQ(bound(3), 1002);
    EXPECT_EQ(interrupts(data_none | act_trigger, 2, 3, 1), 0);
    EXPECT_EQ(interrupts(data_bool | act_trigger, 2, 1, 3, {0x010000}), 0);
    EXPECT_EQ(caller.program.events, (std::vector<std::string>{"trigger 1002", "trigger 1002"}));
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 1, 0, 1, {1001}), -EINVAL) << "MSI-X is on";
    EXPECT_EQ(interrupts(data_none | act_trigger, 2, 0, 0), 0);
    EXPECT_TRUE(caller.program.eventfds.empty());
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 1, 0, 1, {1001}), 0) << "MSI-X is off";
}

TEST_F(DeviceTest, a_wrong_eventfd_undoes_its_call) {
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 2, 0, 1, {1000}), 0);
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 2, 0, 3, {1001, 1002, 77}), -EBADF);
    EXPECT_EQ(bound(0), 0) << "Linux takes what the block had before away, too";
    EXPECT_EQ(bound(1), 0);
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 2, 4, 1, {Program::other_file}), -EINVAL);
}

TEST_F(DeviceTest, intx_is_masked_while_it_is_on) {
    EXPECT_EQ(interrupts(data_none | VFIO_IRQ_SET_ACTION_MASK, 0, 0, 1), -EINVAL);
    EXPECT_EQ(interrupts(data_eventfd | act_trigger, 0, 0, 1, {1000}), 0);
    EXPECT_EQ(interrupts(data_none | VFIO_IRQ_SET_ACTION_MASK, 0, 0, 1), 0);
    EXPECT_EQ(interrupts(data_bool | VFIO_IRQ_SET_ACTION_UNMASK, 0, 0, 1, {0}), 0);
    EXPECT_EQ(interrupts(data_none | VFIO_IRQ_SET_ACTION_UNMASK, 0, 0, 1), 0);
    EXPECT_EQ(interrupts(data_eventfd | VFIO_IRQ_SET_ACTION_UNMASK, 0, 0, 1, {1001}), -ENOTTY);
    EXPECT_EQ(caller.program.events, (std::vector<std::string>{"mask 0", "unmask 0"}));
}

TEST_F(DeviceTest, a_reset_of_the_bus_needs_every_group_on_it) {
    std::array<std::uint32_t, 7> info{28};
    EXPECT_EQ(caller.call(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info), 0);
    EXPECT_EQ(info, (std::array<std::uint32_t, 7>{28, 0, 2, 7, 0x0005'0000, 7, 0x0105'0000}));
    info = {20};
    EXPECT_EQ(caller.call(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info), -ENOSPC);
    EXPECT_EQ(info[2], 2U);
    const auto group = static_cast<std::uint32_t>(caller.group);
    const int other = caller.open(caller.kernel.open_group(9));

    struct Row {
        std::int64_t answer;
        std::array<std::uint32_t, 4> words;
    };

    for (const Row& row : {Row{-EINVAL, {11, 0, 1, group}}, Row{-EINVAL, {16, 1, 1, group}},
                           Row{-EINVAL, {16, 0, 0, group}}, Row{-EINVAL, {16, 0, 3, group}},
                           Row{-EINVAL, {16, 0, 1, static_cast<std::uint32_t>(other)}},
                           Row{-EBADF, {16, 0, 1, ~0U}}, Row{0, {16, 0, 1, group}}}) {
        auto words = row.words;
        EXPECT_EQ(caller.call(device, VFIO_DEVICE_PCI_HOT_RESET, words), row.answer)
            << words[0] << " " << words[1] << " " << words[2] << " " << words[3];
    }
    EXPECT_EQ(caller.program.events, (std::vector<std::string>{"reset 0", "reset 1"}));
}

TEST_F(DeviceTest, features_are_absent) {
    std::array<std::uint32_t, 4> feature{16, VFIO_DEVICE_FEATURE_PROBE | 1};
    EXPECT_EQ(caller.call(device, VFIO_DEVICE_FEATURE, feature), -ENOTTY);
    feature[1] = 1U << 19;
    EXPECT_EQ(caller.call(device, VFIO_DEVICE_FEATURE, feature), -EINVAL);
    feature[1] = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET | 1;
    EXPECT_EQ(caller.call(device, VFIO_DEVICE_FEATURE, feature), -EINVAL);
}

} // namespace
} // namespace moat::tests
