// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The inside of the virtual machine: its devices, bound to vfio-pci and opened through the kernel.
// The variable MOAT_VM_BACKEND names the backend that the kernel must choose.
#pragma once

#include "moat/core/text.hpp"

#include "api/engines.hpp"
#include "audit/driver.hpp"
#include "machine/vfio_host/vfio_machine.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <list>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace moat::tests {

using namespace moat::literals;
using machine::vfio_host::Backend;
using machine::vfio_host::KernelDomain;
using machine::vfio_host::VfioMachine;

// The devices that scripts/vm adds to the machine.
inline constexpr machine::Bdf edu(0, 4, 0);
inline constexpr machine::Bdf nvme(0, 5, 0);
inline constexpr machine::Bdf large_bar(0, 6, 0);
inline constexpr machine::Bdf memory_bar(0, 7, 0);

inline Backend expected_backend() {
    const char* const name = std::getenv("MOAT_VM_BACKEND");
    return name != nullptr && std::string_view(name) == "iommufd" ? Backend::iommufd
                                                                  : Backend::type1;
}

inline std::string content(const char* file) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

/// The number of moat's traces in the kernel.
inline std::ptrdiff_t traces() {
    std::error_code error;
    return std::ranges::count_if(
        std::filesystem::directory_iterator("/sys/kernel/tracing/instances", error),
        [](const auto& each) { return each.path().filename().string().starts_with("moat-"); });
}

inline constexpr std::byte canary{0xc5};
inline constexpr std::uint64_t page = 4096;

/// A machine, and one function in a domain of its own.
class GuestTest : public ::testing::Test, protected audit::BufferSource {
  protected:
    using Space = api::MachineSpace;

    void SetUp() override {
        for (const machine::Bdf each : {edu, nvme, large_bar, memory_bar}) {
            const auto bound = machine::vfio_host::bind_to_vfio(each);
            ASSERT_TRUE(bound) << bound.error();
        }
        open_machine();
    }

    void open_machine() {
        auto opened = VfioMachine::open();
        ASSERT_TRUE(opened) << opened.error();
        machine = std::move(*opened);
        ASSERT_EQ(machine->backend(), expected_backend());
        auto made = machine->create_kernel_domain();
        ASSERT_TRUE(made) << made.error();
        domain = std::move(*made);
    }

    void open_function(machine::Bdf address) {
        const auto attached = machine->attach(address, *domain);
        ASSERT_TRUE(attached) << attached.error();
        functions_.push_back(address);
        auto opened = machine->open(address);
        ASSERT_TRUE(opened) << opened.error();
        opened_.push_back(std::move(*opened));
    }

    [[nodiscard]] machine::Function& function(std::size_t index = 0) { return *opened_.at(index); }

    void make_space() {
        dma::SpaceConfig config;
        config.listener = {.fault =
                               [](void* context, const fault::Diagnosis& diagnosis) noexcept {
                                   static_cast<GuestTest*>(context)->heard.push_back(diagnosis);
                               },
                           .driver_error = nullptr,
                           .context = this};
        auto created = Space::create(*domain, config);
        ASSERT_TRUE(created) << created.error();
        space = std::move(*created);
    }

    void drive() {
        auto probed = audit::probe({*machine, function(), *this});
        ASSERT_TRUE(probed) << probed.error();
        driver = std::move(*probed);
    }

    void TearDown() override {
        driver.reset();
        for (const Obtained& each : obtained_)
            EXPECT_TRUE(space->unmap(each.iova, each.memory.size(), each.direction));
        space.reset();
        opened_.clear();
        for (const machine::Bdf each : functions_)
            EXPECT_TRUE(machine->detach(each));
        obtained_.clear();
        domain.reset();
        machine.reset();
    }

    Result<audit::Buffer> obtain(const audit::Need& need) override {
        auto memory = machine->allocate(need.size);
        if (!memory)
            return std::unexpected(memory.error());
        const dma::Memory mapped{memory->bytes(), memory->physical()};
        const auto iova = space->map(mapped, need.direction, need.what);
        if (!iova)
            return std::unexpected(iova.error());
        obtained_.push_back({std::move(*memory), *iova, need.direction});
        return audit::Buffer{*iova, obtained_.back().memory.bytes().first(need.size.value())};
    }

    /// Filled with canaries.
    [[nodiscard]] machine::SharedMemory memory_of(std::uint64_t pages) {
        auto memory = machine->allocate(ByteCount(pages * page));
        EXPECT_TRUE(memory) << memory.error();
        std::ranges::fill(memory->bytes(), canary);
        return std::move(*memory);
    }

    audit::Answer run(std::string_view name, Iova data, std::uint64_t length,
                      std::uint64_t position = 0, std::span<const audit::Buffer> lists = {}) {
        const auto all = driver->operations();
        const auto found = std::ranges::find(all, name, &audit::Operation::name);
        EXPECT_NE(found, all.end()) << name;
        const auto answer = driver->run({.operation = static_cast<unsigned>(found - all.begin()),
                                         .data = data,
                                         .length = ByteCount(length),
                                         .position = position,
                                         .lists = lists});
        EXPECT_TRUE(answer) << answer.error();
        return answer.value_or(audit::Answer{});
    }

    /// Passes pending faults to the space. Return: the number of lost faults.
    std::uint64_t take_faults() {
        const auto keep = [&](const fault::Record& record) {
            records.push_back(record);
            if (space)
                (void)space->fault(record);
        };
        const auto lost = machine->take_faults(keep);
        EXPECT_TRUE(lost) << lost.error();
        return lost.value_or(0);
    }

    /// Waits a limited time for the first fault. If a device strays twice, the kernel may report
    /// only the first.
    void bring_fault_home() {
        const auto one_is_there = [&] {
            (void)take_faults();
            return !records.empty();
        };
        (void)machine->wait_until(one_is_there, std::chrono::seconds(2));
    }

    [[nodiscard]] static std::ptrdiff_t changed(std::span<const std::byte> bytes) {
        return std::ranges::count_if(bytes, [](std::byte each) { return each != canary; });
    }

    std::unique_ptr<VfioMachine> machine;
    std::unique_ptr<KernelDomain> domain;
    std::unique_ptr<Space> space;
    std::unique_ptr<audit::Driver> driver;
    std::vector<fault::Diagnosis> heard; ///< by the space's listener
    std::vector<fault::Record> records;

  private:
    struct Obtained {
        machine::SharedMemory memory;
        Iova iova;
        dma::Direction direction;
    };

    std::vector<machine::Bdf> functions_;
    std::vector<std::unique_ptr<machine::Function>> opened_;
    std::list<Obtained> obtained_;
};

} // namespace moat::tests
