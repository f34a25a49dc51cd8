// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver of the network card, as a fixture for tests.
#pragma once

#include "machine/soft/nic.hpp"
#include "soft.hpp"

#include <array>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace moat::machine::soft::nic {

inline constexpr std::uint64_t page = 4096;

// Offsets in the common configuration, and other windows of BAR 0.
inline constexpr std::uint64_t feature_select = 0;
inline constexpr std::uint64_t feature = 4;
inline constexpr std::uint64_t driver_feature_select = 8;
inline constexpr std::uint64_t driver_feature = 12;
inline constexpr std::uint64_t config_vector = 16;
inline constexpr std::uint64_t queues = 18;
inline constexpr std::uint64_t status = 20;
inline constexpr std::uint64_t queue_select = 22;
inline constexpr std::uint64_t queue_size = 24;
inline constexpr std::uint64_t queue_vector = 26;
inline constexpr std::uint64_t queue_enable = 28;
inline constexpr std::uint64_t queue_place = 32;
inline constexpr std::uint64_t causes = 0x1000;
inline constexpr std::uint64_t mac = 0x2000;
inline constexpr std::uint64_t doorbells = 0x3000;

inline constexpr std::uint8_t features_ok = 8;
inline constexpr std::uint8_t ready = 1 | 2 | features_ok;
inline constexpr std::uint8_t driver_ok = 4;
inline constexpr std::uint8_t needs_reset = 0x40;

inline constexpr std::uint16_t continues = 1;
inline constexpr std::uint16_t device_writes = 2;

struct Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};

struct Used {
    std::uint32_t head;
    std::uint32_t bytes;
};

/// A queue of a driver: each ring in a page.
struct DriverQueue {
    Mapped descriptors;
    Mapped available;
    Mapped used;
    std::uint16_t posted = 0;

    template <class T>
    static T& at(const Mapped& mapped, std::size_t offset) {
        return *reinterpret_cast<T*>(mapped.bytes().data() + offset);
    }

    void set(std::uint16_t index, const Descriptor& descriptor) const {
        at<Descriptor>(descriptors, index * sizeof descriptor) = descriptor;
    }

    void post(std::uint16_t head) {
        at<std::uint16_t>(available, 4 + posted % depth * 2UL) = head;
        at<std::uint16_t>(available, 2) = ++posted;
    }

    [[nodiscard]] std::uint16_t returned() const { return at<std::uint16_t>(used, 2); }

    [[nodiscard]] Used entry(unsigned index) const {
        return at<Used>(used, 4 + index % depth * sizeof(Used));
    }

    static constexpr unsigned depth = 8;
};

/// A started card, and a driver that does what tests need.
class SoftNic : public testing::Test {
  protected:
    static constexpr std::uint64_t send_iova = 0x1000000;
    static constexpr std::uint64_t receive_iova = 0x2000000;
    static constexpr std::uint32_t buffer = 2048;

    void SetUp() override {
        nic.report_to([this](const Remark& remark) { remarks.push_back(remark); });
        start();
    }

    void start() {
        set_status(0);
        accept(0, 1U << 5);
        accept(1, 3);
        set_status(ready);
        set_up(0, receive);
        set_up(1, transmit);
        set_status(ready | driver_ok);
    }

    void set_status(std::uint8_t value) { system.registers().write8(status, value); }

    [[nodiscard]] std::uint8_t get_status() { return system.registers().read8(status); }

    void accept(std::uint32_t word, std::uint32_t features) {
        system.registers().write32(driver_feature_select, word);
        system.registers().write32(driver_feature, features);
    }

    void set_up(std::uint16_t index, DriverQueue& queue) {
        Registers& registers = system.registers();
        registers.write16(queue_select, index);
        registers.write16(queue_size, DriverQueue::depth);
        registers.write16(queue_vector, index);
        std::uint64_t at = queue_place;
        for (const Mapped* const ring : {&queue.descriptors, &queue.available, &queue.used}) {
            std::ranges::fill(ring->bytes(), std::byte{0});
            registers.write32(at, static_cast<std::uint32_t>(ring->iova.value()));
            registers.write32(at + 4, static_cast<std::uint32_t>(ring->iova.value() >> 32));
            at += 8;
        }
        queue.posted = 0;
        registers.write16(queue_enable, 1);
    }

    /// A buffer of the receive queue at `offset`.
    void offer(std::uint16_t index, std::uint64_t offset = 0, std::uint32_t bytes = buffer) {
        receive.set(index, {receive_iova + offset, bytes, device_writes, 0});
        receive.post(index);
    }

    /// Sends `bytes`, with their header, from `offset`.
    void send(std::uint16_t index, std::uint32_t bytes, std::uint64_t offset = 0) {
        transmit.set(index, {send_iova + offset, bytes, 0, 0});
        transmit.post(index);
        ring(1);
    }

    void ring(std::uint64_t queue) {
        system.registers().write16(doorbells + 4 * queue, static_cast<std::uint16_t>(queue));
        system.run();
    }

    /// One frame of 100 bytes there and back.
    void loop_once(std::uint16_t index = 0) {
        offer(index);
        send(index, 112);
    }

    void fill(const Mapped& mapped) {
        for (std::byte& each : mapped.bytes())
            each = static_cast<std::byte>(random() % 0xa0); // no stray byte
    }

    [[nodiscard]] std::vector<Mistake> mistakes() const {
        std::vector<Mistake> found;
        for (const Remark& each : remarks)
            found.push_back(each.mistake);
        return found;
    }

    [[nodiscard]] static std::size_t strays_in(const Mapped& mapped) {
        return static_cast<std::size_t>(std::ranges::count(mapped.bytes(), stray_byte));
    }

    [[nodiscard]] fault::Diagnosis one_fault() {
        const auto faults = system.faults();
        EXPECT_EQ(faults.size(), 1U);
        return faults.empty() ? fault::Diagnosis{} : faults.front();
    }

    Nic nic;
    System system{nic};
    DriverQueue receive{system.map(0x10000, page, "receive descriptors", fault::Allows::read),
                        system.map(0x20000, page, "receive available", fault::Allows::read),
                        system.map(0x30000, page, "receive used", fault::Allows::write)};
    DriverQueue transmit{system.map(0x40000, page, "transmit descriptors", fault::Allows::read),
                         system.map(0x50000, page, "transmit available", fault::Allows::read),
                         system.map(0x60000, page, "transmit used", fault::Allows::write)};
    Mapped sent = system.map(send_iova, 4 * page, "sent", fault::Allows::read);
    Mapped got = system.map(receive_iova, 4 * page, "received", fault::Allows::write);
    std::vector<Remark> remarks;
    std::mt19937 random{1};
};

} // namespace moat::machine::soft::nic
