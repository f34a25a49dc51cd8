// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The outside view of each misdeed of the network card.
#include "soft_nic.hpp"

namespace moat::machine::soft::nic {

namespace {

using fault::Kind;

class MisbehavingNic : public SoftNic {
  protected:
    /// Returns when the buffer is the driver's again; the card may do more.
    void receive_a_frame() {
        offer(0);
        transmit.set(0, {send_iova, 112, 0, 0});
        transmit.post(0);
        system.registers().write16(doorbells + 4, 1);
        const auto received = [&] { return receive.returned() == 1; };
        ASSERT_EQ(system.machine().wait_until(received, std::chrono::seconds(1)), Wait::happened);
    }
};

TEST_F(MisbehavingNic, overrun_passes_the_end_of_a_receive_buffer) {
    nic.misbehave(
        {.misdeed = Misdeed::overrun, .bytes = 64, .when = {.after = 1}}); // not the transmission
    offer(0, 4 * page - buffer);
    send(0, 112);
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::out_of_bounds_right);
    EXPECT_EQ(found.mapping->label, "received");
    EXPECT_EQ(found.distance.least, 1U);
    EXPECT_EQ(nic.misdeeds(), 1U);
}

TEST_F(MisbehavingNic, overrun_is_silent_inside_a_mapping) {
    nic.misbehave({Misdeed::overrun, 100});
    loop_once();
    EXPECT_EQ(strays_in(got), 100U);
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(MisbehavingNic, underrun_precedes_a_buffer) {
    nic.misbehave({.misdeed = Misdeed::underrun, .bytes = 16, .when = {.after = 1}});
    loop_once();
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::out_of_bounds_left);
    EXPECT_EQ(found.mapping->label, "received");
}

TEST_F(MisbehavingNic, writes_a_receive_buffer_after_it_was_returned_and_unmapped) {
    nic.misbehave({.misdeed = Misdeed::write_after_completion,
                   .when = {.after = 1},
                   .delay = std::chrono::microseconds(200)});
    ASSERT_NO_FATAL_FAILURE(receive_a_frame());
    system.unmap(got);
    system.run();
    EXPECT_EQ(one_fault().kind, Kind::use_after_unmap);
}

TEST_F(MisbehavingNic, writes_a_receive_buffer_after_its_driver_disabled_it) {
    nic.misbehave({.misdeed = Misdeed::write_after_completion,
                   .when = {.after = 1},
                   .delay = std::chrono::milliseconds(1)});
    ASSERT_NO_FATAL_FAILURE(receive_a_frame());
    set_status(0);
    EXPECT_EQ(strays_in(got), 0U);
    system.run();
    EXPECT_TRUE(nic.disabled());
    EXPECT_EQ(strays_in(got), 64U);
}

TEST_F(MisbehavingNic, uses_the_buffers_of_the_frame_before) {
    nic.misbehave({.misdeed = Misdeed::stale_address, .when = {.after = 1}});
    fill(sent);
    offer(0);
    send(0, 112); // received at the address of the transmission
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.kind, Kind::permission);
    EXPECT_EQ(found.mapping->label, "sent");
}

TEST_F(MisbehavingNic, writes_a_frame_that_it_should_read) {
    nic.misbehave({Misdeed::read_only_violated});
    loop_once();
    EXPECT_EQ(one_fault().kind, Kind::permission);
    EXPECT_EQ(nic.received(), 1U);
}

TEST_F(MisbehavingNic, omits_the_end_of_a_frame) {
    fill(sent);
    nic.misbehave({.misdeed = Misdeed::wrong_length, .bytes = 8, .when = {.after = 1}});
    loop_once();
    EXPECT_EQ(receive.entry(0).bytes, 112U);
    EXPECT_EQ(got.bytes()[103], sent.bytes()[103]);
    EXPECT_TRUE(std::ranges::all_of(got.bytes().subspan(104, 8),
                                    [](std::byte each) { return each == std::byte{0}; }));
}

TEST_F(MisbehavingNic, loses_the_upper_half_of_addresses) {
    constexpr std::uint64_t high = std::uint64_t{5} << 32;
    system.map(high + receive_iova, page, "high", fault::Allows::write);
    nic.misbehave({.misdeed = Misdeed::truncated_address, .when = {.after = 1}});
    fill(sent);
    receive.set(0, {high + receive_iova, buffer, device_writes, 0});
    receive.post(0);
    send(0, 112);
    EXPECT_TRUE(std::ranges::equal(got.bytes().subspan(12, 100), sent.bytes().subspan(12, 100)))
        << "in the buffer at the lower half";
    EXPECT_EQ(nic.misdeeds(), 1U);
    loop_once(1);
    EXPECT_EQ(nic.misdeeds(), 1U) << "addresses below 4 GiB stay as they are";
}

TEST_F(MisbehavingNic, reports_success_where_a_truncated_address_is_not_mapped) {
    constexpr std::uint64_t high = std::uint64_t{5} << 32;
    system.map(high, page, "high", fault::Allows::write);
    nic.misbehave({.misdeed = Misdeed::truncated_address, .when = {.after = 1}});
    receive.set(0, {high, buffer, device_writes, 0});
    receive.post(0);
    send(0, 112);
    const fault::Diagnosis found = one_fault();
    EXPECT_EQ(found.record.where.start().value(), 0U);
    EXPECT_EQ(receive.entry(0).bytes, 112U);
}

} // namespace

} // namespace moat::machine::soft::nic
