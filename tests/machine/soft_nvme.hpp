// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver of the NVMe model, as a fixture for tests.
#pragma once

#include "machine/soft/nvme.hpp"
#include "soft.hpp"

#include <array>
#include <gtest/gtest.h>
#include <initializer_list>
#include <random>

namespace moat::machine::soft {

struct Completion {
    std::uint32_t result = 0;
    Nvme::Status status{};
    std::uint16_t number = 0;
    bool do_not_retry = false;
};

struct Queue {
    Mapped submissions;
    Mapped completions;
    unsigned number = 0;
    unsigned tail = 0;
    unsigned head = 0;
    bool phase = true;
};

/// A started controller with one pair of I/O queues, and a driver that does what tests need.
class SoftNvme : public testing::Test {
  protected:
    explicit SoftNvme(const NvmeOptions& options = {}) : nvme(options) {}

    using Status = Nvme::Status;
    using Words = std::array<std::uint32_t, 16>;

    static constexpr unsigned depth = 16;
    static constexpr std::uint64_t data_iova = 0x1000000;
    static constexpr std::uint64_t list_iova = 0x2000000;
    static constexpr std::uint64_t page = 4096;

    void SetUp() override {
        start();
        ASSERT_EQ(create_io_queues(), Status::success);
    }

    void start() {
        Registers& registers = system.registers();
        registers.write32(0x24, (depth - 1) << 16 | (depth - 1));
        registers.write64(0x28, admin.submissions.iova.value());
        registers.write64(0x30, admin.completions.iova.value());
        registers.write32(0x14, 6U << 16 | 4U << 20 | 1);
        ASSERT_EQ(registers.read32(0x1c), 0U) << "not ready yet";
        system.run();
        ASSERT_EQ(registers.read32(0x1c), 1U) << "ready";
    }

    /// A reset, and new queues.
    void restart() {
        need(system.function().reset());
        system.function().set_bus_master(true);
        for (Queue* const each : {&admin, &io}) {
            std::ranges::fill(each->completions.bytes(), std::byte{0});
            each->tail = each->head = 0;
            each->phase = true;
        }
        start();
        ASSERT_EQ(create_io_queues(), Status::success);
    }

    [[nodiscard]] Status create_io_queues() {
        const auto create = [&](std::uint32_t opcode, const Mapped& memory, std::uint32_t word) {
            Words command{opcode};
            set_wide(command, 6, memory.iova.value());
            command[10] = 1 | (depth - 1) << 16;
            command[11] = word;
            return submit(admin, command).status;
        };
        const Status completions = create(5, io.completions, 1 | 2);
        return completions != Status::success ? completions
                                              : create(1, io.submissions, 1 | 1U << 16);
    }

    static void set_wide(Words& words, unsigned at, std::uint64_t value) {
        words[at] = static_cast<std::uint32_t>(value);
        words[at + 1] = static_cast<std::uint32_t>(value >> 32);
    }

    Completion submit(Queue& queue, Words command) {
        command[0] |= static_cast<std::uint32_t>(++number) << 16;
        std::memcpy(queue.submissions.bytes().data() + 64 * queue.tail, command.data(), 64);
        queue.tail = (queue.tail + 1) % depth;
        system.registers().write32(0x1000 + 8 * queue.number, queue.tail);
        const auto* const entry = reinterpret_cast<const volatile std::uint32_t*>(
            queue.completions.bytes().data() + 16 * queue.head);
        const auto answered = [&] { return ((entry[3] >> 16 & 1) != 0) == queue.phase; };
        if (system.machine().wait_until(answered, std::chrono::seconds(1)) != Wait::happened)
            return {.status = no_answer};
        const Completion completion{entry[0], static_cast<Status>(entry[3] >> 17 & 0x7ff),
                                    static_cast<std::uint16_t>(entry[3]), (entry[3] >> 31) != 0};
        queue.head = (queue.head + 1) % depth;
        queue.phase = queue.head == 0 ? !queue.phase : queue.phase;
        system.registers().write32(0x1004 + 8 * queue.number, queue.head);
        EXPECT_EQ(completion.number, number);
        return completion;
    }

    /// A read or write of blocks with contiguous data, by PRP.
    [[nodiscard]] Words blocks(std::uint32_t opcode, std::uint64_t first, std::uint32_t count,
                               std::uint64_t data = data_iova) const {
        Words command{opcode, 1};
        set_wide(command, 6, data);
        set_wide(command, 8, data + page - data % page);
        set_wide(command, 10, first);
        command[12] = count - 1;
        return command;
    }

    /// A PRP list in `list`, of the pages from `data` on.
    void fill_list(const Mapped& list, std::size_t at, std::uint64_t data, std::size_t pages) {
        for (std::size_t index = 0; index != pages; ++index) {
            const std::uint64_t entry = data + index * page;
            std::memcpy(list.bytes().data() + 8 * (at + index), &entry, sizeof entry);
        }
    }

    struct Descriptor {
        std::uint64_t address;
        std::uint32_t bytes;
        std::uint32_t type;
    };

    static void put(const Mapped& list, std::size_t at, std::initializer_list<Descriptor> all) {
        for (const Descriptor& each : all)
            std::memcpy(list.bytes().data() + 16 * at++, &each, sizeof each);
    }

    static void set_descriptor(Words& command, const Descriptor& descriptor) {
        command[0] |= 1U << 14;
        std::memcpy(&command[6], &descriptor, sizeof descriptor);
    }

    void fill_medium() {
        std::mt19937 random(1);
        for (std::byte& each : nvme.medium())
            each = static_cast<std::byte>(random() % 0xa0); // no stray byte
    }

    [[nodiscard]] static std::size_t strays_in(const Mapped& mapped) {
        return static_cast<std::size_t>(std::ranges::count(mapped.bytes(), stray_byte));
    }

    /// The device's mistakes in one command that it reports as successful.
    [[nodiscard]] fault::Diagnosis one_fault() {
        const auto faults = system.faults();
        EXPECT_EQ(faults.size(), 1U);
        return faults.empty() ? fault::Diagnosis{} : faults.front();
    }

    static constexpr Status no_answer{0xffff};

    Nvme nvme;
    System system{nvme};
    Queue admin{system.map(0x10000, page, "admin submissions", fault::Allows::read),
                system.map(0x20000, page, "admin completions", fault::Allows::write), 0};
    Queue io{system.map(0x30000, page, "submissions", fault::Allows::read),
             system.map(0x40000, page, "completions", fault::Allows::write), 1};
    std::uint16_t number = 0;
};

} // namespace moat::machine::soft
