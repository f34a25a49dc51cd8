// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device of QEMU's in a domain of its own, with memory that the test chooses: buffers that end at
// a page's end, beside a neighbour or an unmapped page, filled with canaries.
#pragma once

#include "../machine/qemu.hpp"
#include "audit/driver.hpp"

#include <algorithm>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moat::tests {

/// Of a suite whose parameter is whether virtio's queues are packed.
inline constexpr auto name_of_queues = [](const ::testing::TestParamInfo<bool>& tested) {
    return std::string(tested.param ? "packed" : "split");
};

class DeviceTest : public QemuTest, protected audit::BufferSource {
  protected:
    static constexpr std::byte canary{0xc5};
    static constexpr std::uint64_t page = 4096;

    /// Whole pages of memory, and their address for the device.
    struct Piece {
        machine::SharedMemory memory;
        Iova iova;

        /// The offset of the first overwritten canary at or after `from`; otherwise the length.
        [[nodiscard]] std::size_t untouched_from(std::size_t from) const {
            const auto bytes = memory.bytes();
            const auto found = std::find_if(bytes.begin() + static_cast<std::ptrdiff_t>(from),
                                            bytes.end(), [](std::byte b) { return b != canary; });
            return static_cast<std::size_t>(found - bytes.begin());
        }
    };

    /// Starts the machine and the device's driver.
    void drive(const machine::qemu::QemuOptions& options, std::uint32_t class_code) {
        start(options);
        if (!machine)
            return;
        const auto infos = machine->functions();
        const auto found = std::ranges::find(infos, class_code, &machine::FunctionInfo::class_code);
        ASSERT_NE(found, infos.end());
        address = found->address;
        domain = *machine->create_domain();
        ASSERT_TRUE(machine->attach(address, *domain));
        function = *machine->open(address);
        auto probed = audit::probe({*machine, *function, *this});
        ASSERT_TRUE(probed) << probed.error();
        driver = std::move(*probed);
        EXPECT_TRUE(faults().empty()) << "a device that is started strays nowhere";
    }

    void TearDown() override {
        driver.reset();
        function.reset();
        if (domain) {
            ASSERT_EQ(machine->detach(address).has_value(), machine->health().has_value());
        }
        pieces_.clear();
        domain.reset();
    }

    /// Filled with canaries. The pages before and after it are unmapped, unless it must follow
    /// another one.
    Piece& piece(std::uint64_t pages, Attributes attributes = read_write) {
        next_ += page;
        Piece& made = following(pages, attributes);
        next_ += page;
        return made;
    }

    /// Lies directly behind the piece that was created with it.
    Piece& following(std::uint64_t pages, Attributes attributes = read_write) {
        auto memory = *machine->allocate(ByteCount(pages * page));
        std::memset(memory.bytes().data(), static_cast<int>(canary), memory.bytes().size());
        const Iova iova(identity ? memory.physical().value() : next_);
        next_ += pages * page;
        EXPECT_TRUE(domain->map(iova, memory.size(), memory.physical(), attributes));
        return pieces_.emplace_back(std::move(memory), iova);
    }

    /// A page's pieces, behind each other for the device and apart in memory.
    std::pair<Piece*, Piece*> pieces_apart() {
        Piece& first = following(1);
        const auto gap = *machine->allocate(ByteCount(page));
        Piece& second = following(1);
        EXPECT_NE(second.memory.physical(), first.memory.physical() + ByteCount(page));
        return {&first, &second};
    }

    Result<audit::Buffer> obtain(const audit::Need& need) override {
        Piece& made = piece((need.size.value() + page - 1) / page);
        std::memset(made.memory.bytes().data(), 0, made.memory.bytes().size());
        queues.push_back(&made);
        return audit::Buffer{made.iova, made.memory.bytes().first(need.size.value())};
    }

    [[nodiscard]] unsigned operation(std::string_view name) const {
        const auto all = driver->operations();
        const auto found = std::ranges::find(all, name, &audit::Operation::name);
        EXPECT_NE(found, all.end()) << name;
        return static_cast<unsigned>(found - all.begin());
    }

    audit::Answer run(std::string_view name, Iova data, std::uint64_t length,
                      std::uint64_t position = 0, std::span<const audit::Buffer> lists = {}) {
        const auto answer = driver->run({.operation = operation(name),
                                         .data = data,
                                         .length = ByteCount(length),
                                         .position = position,
                                         .lists = lists});
        EXPECT_TRUE(answer) << answer.error();
        return answer.value_or(audit::Answer{});
    }

    /// Exactly one fault was recorded: of this device, at the page of `at`, with VT-d's code.
    void expect_fault(fault::Access access, Iova at, std::uint64_t code) {
        const auto records = faults();
        ASSERT_EQ(records.size(), 1U);
        EXPECT_EQ(records[0].source, fault::Source::requester(address.requester()));
        EXPECT_EQ(records[0].access, access);
        EXPECT_TRUE(records[0].where.contains(at)) << records[0].where << " and not " << at;
        EXPECT_EQ(records[0].code, code);
    }

    /// Of a network device: a frame of 1000 bytes is received into the last 128 of a page.
    void expect_write_stops_at_guard() {
        Piece& buffer = piece(1);
        const Iova data = buffer.iova + ByteCount(page - bytes_in_page);
        EXPECT_EQ(run("receive", data, 1000).verdict, audit::Verdict::success);
        EXPECT_EQ(buffer.untouched_from(0), page - bytes_in_page);
        expect_fault(fault::Access::write, data + ByteCount(bytes_in_page), 5);
    }

    /// The same for a frame that is sent, with the verdict of the device whose read is blocked.
    void expect_read_stops_at_guard(audit::Verdict verdict) {
        const Iova data = piece(1).iova + ByteCount(page - bytes_in_page);
        EXPECT_EQ(run("transmit", data, 1000).verdict, verdict);
        expect_fault(fault::Access::read, data + ByteCount(bytes_in_page), 6);
    }

    /// Whether pieces are mapped at their physical addresses, for a device that bypasses the IOMMU.
    bool identity = false;
    machine::Bdf address;
    std::unique_ptr<machine::Domain> domain;
    std::unique_ptr<machine::Function> function;
    std::unique_ptr<audit::Driver> driver;
    std::vector<Piece*> queues; ///< buffers of the driver, in order

  private:
    static constexpr std::uint64_t bytes_in_page = 128;

    std::list<Piece> pieces_;
    std::uint64_t next_ = 0x100000;
};

} // namespace moat::tests
