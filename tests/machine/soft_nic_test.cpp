// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The network card: negotiation, frames around its loop, mistakes of its driver, hostile rings.
#include "sanitized.hpp"
#include "soft_nic.hpp"

namespace moat::machine::soft::nic {

namespace {

TEST_F(SoftNic, is_a_modern_virtio_card_with_its_address) {
    EXPECT_EQ(system.function().config().read32(0), 0x10411af4U);
    EXPECT_EQ(system.registers().read32(mac), 0x00000002U);
    EXPECT_EQ(system.registers().read16(mac + 4), 0x0100U);
    EXPECT_EQ(system.registers().read16(mac + 6), 1U) << "the link is up";
    EXPECT_EQ(system.registers().read16(queues), 2U);
    system.registers().write32(feature_select, 1);
    EXPECT_EQ(system.registers().read32(feature), 3U);
    system.registers().write32(feature_select, 2);
    EXPECT_EQ(system.registers().read32(feature), 0U);
}

TEST_F(SoftNic, says_where_its_structures_lie) {
    Registers& config = system.function().config();
    std::vector<std::array<std::uint32_t, 3>> found; // type, offset, bytes
    unsigned steps = 0;
    for (unsigned at = config.read8(pci::capabilities); at != 0 && steps != 48; ++steps) {
        if (config.read8(at) == pci::capability_vendor) {
            EXPECT_EQ(config.read8(at + 4), 0U) << "BAR 0";
            found.push_back({config.read8(at + 3), config.read32(at + 8), config.read32(at + 12)});
            if (config.read8(at + 3) == 2) {
                EXPECT_EQ(config.read8(at + 2), 20U);
                EXPECT_EQ(config.read32(at + 16), 4U) << "between doorbells";
            }
        }
        at = config.read8(at + 1);
    }
    EXPECT_LT(steps, 48U);
    EXPECT_EQ(found, (std::vector<std::array<std::uint32_t, 3>>{
                         {1, 0, 56}, {2, 0x3000, 8}, {3, 0x1000, 1}, {4, 0x2000, 8}}));
}

TEST_F(SoftNic, refuses_features_that_it_does_not_offer) {
    for (const auto& [low, high] : {std::pair{1U << 15, 1U}, {0U, 5U}, {1U << 5, 0U}}) {
        set_status(0);
        accept(0, low);
        accept(1, high);
        set_status(ready);
        EXPECT_EQ(get_status() & features_ok, 0) << low << ' ' << high;
    }
    accept(1, 1);
    accept(0, 0);
    set_status(ready);
    EXPECT_NE(get_status() & features_ok, 0);
}

TEST_F(SoftNic, receives_what_it_transmits) {
    fill(sent);
    for (unsigned frame = 0; frame != 40; ++frame) { // the rings wrap
        const auto index = static_cast<std::uint16_t>(frame % DriverQueue::depth);
        const std::uint32_t bytes = 13 + 40 * frame;
        offer(index, index * std::uint64_t{buffer});
        send(index, bytes, frame);
        ASSERT_EQ(receive.returned(), frame + 1);
        ASSERT_EQ(transmit.returned(), frame + 1);
        EXPECT_EQ(receive.entry(frame).head, index);
        EXPECT_EQ(receive.entry(frame).bytes, bytes);
        const auto arrived = got.bytes().subspan(index * std::size_t{buffer}, bytes);
        EXPECT_TRUE(
            std::ranges::equal(arrived.subspan(12), sent.bytes().subspan(frame + 12, bytes - 12)));
        EXPECT_EQ(arrived[10], std::byte{1}) << "one buffer";
    }
    EXPECT_EQ(nic.received(), 40U);
    EXPECT_TRUE(system.faults().empty());
    EXPECT_TRUE(remarks.empty());
}

TEST_F(SoftNic, gathers_and_scatters) {
    fill(sent);
    transmit.set(3, {send_iova, 12, continues, 5});
    transmit.set(5, {send_iova + 100, 50, continues, 1});
    transmit.set(1, {send_iova + 300, 60, 0, 0});
    transmit.post(3);
    receive.set(2, {receive_iova, 40, continues | device_writes, 7});
    receive.set(7, {receive_iova + 1000, 500, device_writes, 0});
    receive.post(2);
    ring(1);
    ASSERT_EQ(receive.returned(), 1U);
    EXPECT_EQ(receive.entry(0).bytes, 122U);
    std::vector<std::byte> frame(sent.bytes().begin() + 100, sent.bytes().begin() + 150);
    frame.insert(frame.end(), sent.bytes().begin() + 300, sent.bytes().begin() + 360);
    EXPECT_TRUE(std::equal(frame.begin(), frame.begin() + 28, got.bytes().begin() + 12));
    EXPECT_TRUE(std::equal(frame.begin() + 28, frame.end(), got.bytes().begin() + 1000));
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNic, loses_frames_that_have_no_buffer) {
    send(0, 100);
    EXPECT_EQ(transmit.returned(), 1U);
    EXPECT_EQ(nic.dropped(), 1U);
    offer(0, 0, 111);
    send(1, 112);
    EXPECT_EQ(nic.dropped(), 2U);
    EXPECT_EQ(receive.entry(0).bytes, 0U) << "the buffer comes back empty";
    EXPECT_EQ(mistakes(), std::vector{Mistake::receive_buffer_too_short});
    loop_once();
    EXPECT_EQ(nic.received(), 1U);
}

TEST_F(SoftNic, interrupts_unless_the_driver_wants_none) {
    ASSERT_EQ(need(system.function().enable_interrupts(3)), 3U);
    loop_once();
    EXPECT_TRUE(system.function().take_interrupt(0));
    EXPECT_TRUE(system.function().take_interrupt(1));
    EXPECT_EQ(system.registers().read8(causes), 1U);
    EXPECT_EQ(system.registers().read8(causes), 0U) << "reading acknowledges";
    DriverQueue::at<std::uint16_t>(receive.available, 0) = 1;
    loop_once();
    EXPECT_FALSE(system.function().take_interrupt(0));
    EXPECT_TRUE(system.function().take_interrupt(1));
    system.registers().write16(queue_select, 1);
    system.registers().write16(queue_vector, 3);
    EXPECT_EQ(system.registers().read16(queue_vector), 0xffffU) << "there are three vectors";
    loop_once();
    for (const unsigned vector : {0U, 1U, 2U})
        EXPECT_FALSE(system.function().take_interrupt(vector));
    EXPECT_EQ(nic.received(), 3U);
}

TEST_F(SoftNic, asks_for_notifications_while_it_sleeps) {
    loop_once();
    EXPECT_EQ(DriverQueue::at<std::uint16_t>(transmit.used, 0), 0U);
    EXPECT_EQ(DriverQueue::at<std::uint16_t>(receive.used, 0), 1U) << "it has no use for these";
}

/// Reads these mappings, and nothing else.
class Rings final : public BusMaster {
  public:
    explicit Rings(std::vector<Mapped> mapped) : mapped_(std::move(mapped)) {}

    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        for (const Mapped& each : mapped_)
            if (const std::uint64_t offset = from.value() - each.iova.value();
                offset < page && into.size() <= page - offset) {
                std::ranges::copy(each.bytes().subspan(offset, into.size()), into.begin());
                return ByteCount(into.size());
            }
        return ByteCount();
    }

    [[nodiscard]] ByteCount write(Iova /*to*/, std::span<const std::byte> /*from*/) override {
        return ByteCount();
    }

    void interrupt(unsigned /*vector*/) override {}

  private:
    std::vector<Mapped> mapped_;
};

TEST_F(SoftNic, uses_the_buffers_that_it_has_not_taken) {
    Rings bus({receive.descriptors, receive.available, transmit.descriptors, transmit.available});
    const auto uses = [&](std::uint64_t at, std::uint64_t bytes = 1) {
        return nic.uses(IovaRange(Iova(at), ByteCount(bytes)), bus);
    };
    for (int i = 0; i != 5; ++i) // the rings wrap below
        loop_once();
    EXPECT_FALSE(uses(0, std::uint64_t{1} << 40)) << "every buffer was taken";
    for (std::uint16_t i = 0; i != 4; ++i)
        offer(i, i * std::uint64_t{buffer});
    EXPECT_TRUE(uses(receive_iova + 4 * buffer - 1));
    EXPECT_FALSE(uses(receive_iova + 4 * buffer));
    EXPECT_FALSE(uses(receive_iova - 1));
    EXPECT_TRUE(uses(receive_iova - page, page + 1));
    transmit.set(6, {send_iova, 12, continues, 7});
    transmit.set(7, {send_iova + page, 100, 0, 0});
    EXPECT_FALSE(uses(send_iova)) << "not available yet";
    transmit.post(6);
    EXPECT_TRUE(uses(send_iova));
    EXPECT_TRUE(uses(send_iova + page + 99));
    EXPECT_FALSE(uses(send_iova + page + 100));
    ring(1);
    EXPECT_FALSE(uses(send_iova, page));
    EXPECT_FALSE(uses(receive_iova)) << "filled";
    EXPECT_TRUE(uses(receive_iova + buffer));
    set_status(0);
    EXPECT_FALSE(uses(receive_iova + buffer)) << "the reset took it from the device";
}

TEST_F(SoftNic, uses_nothing_that_hostile_rings_name) {
    const auto uses_all = [&] {
        Rings bus({transmit.descriptors, transmit.available});
        return nic.uses(IovaRange(Iova(0x7000'0000), ByteCount(page)), bus);
    };
    transmit.set(0, {~std::uint64_t{0}, 4096, continues, 1}); // past 2^64
    transmit.set(1, {send_iova, 16, continues, 0});           // a loop
    transmit.post(0);
    EXPECT_FALSE(uses_all());
    transmit.set(1, {send_iova, 16, continues, 600}); // past the table
    EXPECT_FALSE(uses_all());
    DriverQueue::at<std::uint16_t>(transmit.available, 2) = 0xffff; // more than there are
    EXPECT_FALSE(uses_all());
    Rings none({});
    EXPECT_FALSE(nic.uses(IovaRange(Iova(0), ByteCount(page)), none));
}

TEST_F(SoftNic, is_disabled_until_its_driver_is_ready_and_after_a_reset) {
    EXPECT_FALSE(nic.disabled());
    set_status(0);
    EXPECT_TRUE(nic.disabled());
    set_status(ready);
    EXPECT_TRUE(nic.disabled());
    set_status(ready | driver_ok);
    EXPECT_FALSE(nic.disabled());
}

TEST_F(SoftNic, keeps_the_place_of_an_enabled_queue) {
    system.registers().write16(queue_select, 0);
    system.registers().write32(queue_place, 0x666000);
    system.registers().write16(queue_size, 4);
    EXPECT_EQ(system.registers().read32(queue_place), 0x10000U);
    EXPECT_EQ(system.registers().read16(queue_size), DriverQueue::depth);
    loop_once();
    EXPECT_EQ(nic.received(), 1U);
}

TEST_F(SoftNic, forgets_everything_at_a_reset) {
    loop_once();
    set_status(0);
    EXPECT_EQ(get_status(), 0U);
    system.registers().write16(queue_select, 0);
    EXPECT_EQ(system.registers().read16(queue_enable), 0U);
    EXPECT_EQ(system.registers().read64(queue_place), 0U);
    start();
    loop_once();
    EXPECT_EQ(receive.returned(), 1U);
    EXPECT_EQ(nic.received(), 2U);
}

TEST_F(SoftNic, remarks_registers_used_out_of_order) {
    set_status(0);
    ring(1);
    EXPECT_EQ(mistakes(), std::vector{Mistake::doorbell_while_disabled});
    remarks.clear();
    accept(1, 3);
    set_status(ready);
    set_up(1, transmit);
    set_status(ready | driver_ok);
    ASSERT_EQ(mistakes(), std::vector{Mistake::enabled_before_queues});
    EXPECT_EQ(remarks[0].queue, 0U);
    remarks.clear();
    ring(0);
    ring(9);
    EXPECT_EQ(mistakes(),
              (std::vector{Mistake::doorbell_without_queue, Mistake::doorbell_without_queue}));
}

TEST_F(SoftNic, breaks_on_hostile_rings_until_it_is_reset) {
    const auto breaks = [&](Mistake mistake, const auto& prepare) {
        start();
        remarks.clear();
        prepare();
        ring(1);
        EXPECT_EQ(mistakes(), std::vector{mistake});
        EXPECT_NE(get_status() & needs_reset, 0) << name(mistake);
        set_status(get_status() & ~needs_reset);
        EXPECT_NE(get_status() & needs_reset, 0) << "only a reset mends it";
    };
    breaks(Mistake::available_past_queue,
           [&] { DriverQueue::at<std::uint16_t>(transmit.available, 2) = DriverQueue::depth + 1; });
    breaks(Mistake::invalid_descriptors, [&] { transmit.post(DriverQueue::depth); });
    breaks(Mistake::invalid_descriptors, [&] {
        transmit.set(0, {send_iova, 20, continues, 1});
        transmit.set(1, {send_iova, 20, continues, 0});
        transmit.post(0);
    });
    breaks(Mistake::invalid_descriptors, [&] {
        transmit.set(0, {send_iova, 20, continues, DriverQueue::depth});
        transmit.post(0);
    });
    breaks(Mistake::invalid_descriptors, [&] {
        transmit.set(0, {send_iova, 20, device_writes, 0});
        transmit.post(0);
    });
    start();
    loop_once();
    EXPECT_EQ(nic.received(), 1U);
}

TEST_F(SoftNic, breaks_if_a_ring_is_out_of_reach) {
    system.unmap(transmit.used);
    loop_once();
    EXPECT_NE(get_status() & needs_reset, 0);
    EXPECT_EQ(one_fault().kind, Kind::use_after_unmap);
}

TEST_F(SoftNic, remarks_frames_without_contents_and_endless_ones) {
    offer(0);
    send(0, 12);
    send(1, 0xffff'ffff);
    EXPECT_EQ(mistakes(),
              (std::vector{Mistake::invalid_frame_length, Mistake::invalid_frame_length}));
    EXPECT_EQ(transmit.returned(), 2U);
    EXPECT_EQ(nic.received(), 0U);
    EXPECT_TRUE(system.faults().empty());
}

TEST_F(SoftNic, survives_random_memory_and_registers) {
    for (unsigned round = 0; round != 3000; ++round) {
        if (round % 20 == 0)
            start();
        for (const DriverQueue* const queue : {&receive, &transmit})
            for (const Mapped* const ring : {&queue->descriptors, &queue->available})
                if (random() % 2 != 0)
                    for (unsigned word = 0; word != 32; ++word)
                        DriverQueue::at<std::uint16_t>(*ring, 2UL * word) =
                            static_cast<std::uint16_t>(random() % 5 == 0 ? random() : random() % 9);
        if (random() % 3 == 0)
            system.registers().write32(random() % 15 * 4, static_cast<std::uint32_t>(random()));
        ring(random() % 3);
        static_cast<void>(system.faults());
    }
    start();
    remarks.clear();
    loop_once();
    EXPECT_TRUE(remarks.empty());
    EXPECT_EQ(receive.returned(), 1U);
}

} // namespace

} // namespace moat::machine::soft::nic
