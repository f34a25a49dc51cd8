// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mappings, faults, errors and callbacks as moat.h documents them, through the library that users
// link.
#include "fixture.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <thread>
#include <utility>

namespace moat::tests {
namespace {

TEST_F(CApi, a_device_reaches_what_is_mapped) {
    open();
    const std::uint64_t iova = map(memory.data(), 4096);
    std::size_t done = 0;
    EXPECT_EQ(write(iova, 4096, &done), MOAT_OK) << error.text;
    EXPECT_EQ(done, 4096U);
    EXPECT_EQ(sync_for_cpu(iova, 4096), MOAT_OK);
    EXPECT_EQ(memory[4095], 0xee);
    unsigned char seen = 0;
    EXPECT_EQ(moat_device_read(device, iova + 4095, &seen, 1, nullptr, nullptr), MOAT_OK);
    EXPECT_EQ(seen, 0xee);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
    EXPECT_TRUE(faults.empty());
}

TEST_F(CApi, a_stray_is_told_with_buffer_bytes_and_device) {
    open();
    const std::uint64_t iova = map(memory.data(), 4096, MOAT_FROM_DEVICE, "receive ring");
    const std::uint64_t other = map(memory.data() + 4096, 4096);
    std::size_t done = 0;
    EXPECT_EQ(write(iova, 4096 + 64, &done), MOAT_REFUSED);
    EXPECT_EQ(done, 4096U);
    EXPECT_STREQ(
        error.text,
        "refused: the IOMMU refused the access from a byte on (done=0x1000, bytes=0x1040)");
    ASSERT_EQ(faults.size(), 1U);
    const HeardFault& heard = faults[0];
    EXPECT_EQ(heard.fault.size, sizeof(moat_fault));
    EXPECT_EQ(heard.fault.kind, MOAT_FAULT_OVERFLOW);
    EXPECT_EQ(heard.fault.access, MOAT_ACCESS_WRITE);
    EXPECT_EQ(heard.fault.precision, MOAT_PRECISION_EXACT);
    EXPECT_EQ(heard.fault.side, MOAT_SIDE_RIGHT);
    EXPECT_EQ(heard.fault.iova, iova + 4096);
    EXPECT_EQ(heard.fault.bytes, 64U);
    EXPECT_EQ(heard.fault.bytes_outside, 64U);
    EXPECT_EQ(heard.fault.least_distance, 1U);
    EXPECT_EQ(heard.fault.device, device);
    EXPECT_EQ(heard.label, "receive ring");
    EXPECT_EQ(heard.source, "0000:00:03.0");
    EXPECT_NE(heard.summary.find("past the end of \"receive ring\""), std::string::npos)
        << heard.summary;
    EXPECT_NE(heard.text.find("ERROR: moat: dma-buffer-overflow"), std::string::npos) << heard.text;
    EXPECT_EQ(heard.json.find(R"({"schema":"moat.fault/1","kind":"dma-buffer-overflow")"), 0U)
        << heard.json;
    EXPECT_EQ(sync_for_cpu(other, 4096), MOAT_OK);
    EXPECT_EQ(memory[4096], 0);
    EXPECT_EQ(unmap(other, 4096), MOAT_OK);
    EXPECT_EQ(unmap(iova, 4096, MOAT_FROM_DEVICE), MOAT_OK);
}

TEST_F(CApi, each_kind_of_stray_has_its_number) {
    open("level=exact:quarantine=1m");
    const auto kind = [&] { return faults.empty() ? -1 : faults.back().fault.kind; };
    EXPECT_EQ(write(0x5000, 1), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_NEVER_MAPPED);
    const std::uint64_t iova = map(memory.data(), 100, MOAT_TO_DEVICE, "command");
    EXPECT_EQ(write(iova, 1), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_PERMISSION);
    EXPECT_EQ(faults.back().fault.side, MOAT_SIDE_INSIDE);
    unsigned char byte = 0;
    EXPECT_EQ(moat_device_read(device, iova - 1, &byte, 1, nullptr, nullptr), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_UNDERFLOW);
    EXPECT_EQ(moat_device_read(device, iova + 100, &byte, 1, nullptr, nullptr), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_OVERFLOW) << "to the byte, inside of a page";
    EXPECT_EQ(write(iova + (std::uint64_t{1} << 40), 1), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_WILD);
    EXPECT_EQ(unmap(iova, 100, MOAT_TO_DEVICE), MOAT_OK);
    EXPECT_EQ(write(iova, 1), MOAT_REFUSED);
    EXPECT_EQ(kind(), MOAT_FAULT_USE_AFTER_UNMAP);
    EXPECT_EQ(faults.back().label, "command");
    for (int each = MOAT_FAULT_OVERFLOW; each <= MOAT_FAULT_NO_ACCESS; ++each)
        EXPECT_STRNE(moat_fault_kind_name(each), "no such kind");
}

TEST_F(CApi, what_the_caller_does_wrong_is_an_error_and_told) {
    open();
    const std::uint64_t iova = map(memory.data(), 4096);
    EXPECT_EQ(unmap(iova, 8192), MOAT_MISMATCH);
    EXPECT_EQ(unmap(iova, 4096, MOAT_TO_DEVICE), MOAT_MISMATCH);
    EXPECT_EQ(moat_sync_for_cpu(container, iova, 4000, 97, nullptr), MOAT_OUT_OF_RANGE);
    EXPECT_EQ(moat_sync_for_device(container, iova + 4096, 0, 1, nullptr), MOAT_NOT_FOUND);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
    EXPECT_EQ(unmap(iova, 4096), MOAT_NOT_FOUND) << "a second time";
    ASSERT_EQ(errors.size(), 5U);
    EXPECT_EQ(errors[0].kind, MOAT_DRIVER_WRONG_SIZE);
    EXPECT_EQ(errors[0].label, "ring");
    EXPECT_EQ(errors[1].kind, MOAT_DRIVER_WRONG_DIRECTION);
    EXPECT_EQ(errors[2].kind, MOAT_DRIVER_SYNC_OUTSIDE);
    EXPECT_EQ(errors[2].iova, iova + 4000);
    EXPECT_EQ(errors[2].bytes, 97U);
    EXPECT_EQ(errors[3].kind, MOAT_DRIVER_NOT_MAPPED);
    EXPECT_EQ(errors[4].kind, MOAT_DRIVER_NOT_MAPPED);
    EXPECT_EQ(errors[4].past_label, "ring");
    EXPECT_EQ(errors[4].json.find(R"({"schema":"moat.driver_error/1","kind":"not-mapped")"), 0U);
}

TEST_F(CApi, level_exact_copies_and_checks_at_a_sync) {
    open("level=exact");
    std::strcpy(reinterpret_cast<char*>(memory.data()), "first");
    const std::uint64_t iova = map(memory.data(), 64);
    std::array<char, 8> seen{};
    ASSERT_EQ(sync_for_cpu(iova, 64), MOAT_OK);
    std::strcpy(reinterpret_cast<char*>(memory.data()), "second");
    ASSERT_EQ(moat_sync_for_device(container, iova, 0, 64, &error), MOAT_OK) << error.text;
    ASSERT_EQ(moat_device_read(device, iova, seen.data(), 7, nullptr, nullptr), MOAT_OK);
    EXPECT_STREQ(seen.data(), "second");
    ASSERT_EQ(write(iova, 2), MOAT_OK);
    ASSERT_EQ(sync_for_cpu(iova, 64), MOAT_OK) << error.text;
    EXPECT_EQ(memory[1], 0xee);
    EXPECT_EQ(unmap(iova, 64), MOAT_OK);
}

TEST_F(CApi, what_is_left_at_the_end_is_told_and_gone) {
    open();
    (void)map(memory.data(), 4096, MOAT_BIDIRECTIONAL, "forgotten");
    within_error = [](CApi& test, const moat_driver_error&) {
        std::uint64_t iova = 0;
        EXPECT_EQ(moat_map(test.container, test.memory.data(), 1, 0, "", &iova, nullptr), MOAT_BUSY)
            << "a container that is being closed";
        EXPECT_EQ(moat_container_close(test.container, nullptr), MOAT_BUSY);
    };
    EXPECT_EQ(moat_container_close(container, &error), MOAT_OK) << error.text;
    container = nullptr;
    ASSERT_EQ(errors.size(), 1U);
    EXPECT_EQ(errors[0].kind, MOAT_DRIVER_LEAK);
    EXPECT_EQ(errors[0].label, "forgotten");
}

TEST_F(CApi, a_callback_may_map_unmap_and_access) {
    open();
    static std::uint64_t victim = 0;
    victim = map(memory.data(), 4096);
    within_fault = [](CApi& test, const moat_fault& fault) {
        test.within_fault = nullptr;
        EXPECT_EQ(test.unmap(victim, 4096), MOAT_OK) << test.error.text;
        victim = test.map(test.memory.data() + 4096, 4096);
        EXPECT_EQ(test.write(victim, 8), MOAT_OK) << "the device that strayed, by this thread";
        EXPECT_EQ(test.write(victim, 5000), MOAT_REFUSED) << "a fault inside of a fault";
        EXPECT_EQ(moat_device_detach(fault.device, &test.error), MOAT_BUSY);
        EXPECT_EQ(moat_container_close(test.container, &test.error), MOAT_BUSY);
        moat_device* another = nullptr;
        EXPECT_EQ(moat_device_attach(test.container, "00:04.0", &another, &test.error), MOAT_OK);
        EXPECT_EQ(moat_device_detach(another, &test.error), MOAT_OK) << test.error.text;
    };
    EXPECT_EQ(write(victim, 4097), MOAT_REFUSED);
    EXPECT_EQ(faults.size(), 2U);
    EXPECT_EQ(sync_for_cpu(victim, 4096), MOAT_OK);
    EXPECT_EQ(memory[4096], 0xee);
    EXPECT_EQ(unmap(victim, 4096), MOAT_OK);
}

TEST_F(CApi, what_a_callback_throws_is_the_result_of_the_call) {
    open();
    const std::uint64_t iova = map(memory.data(), 4096, MOAT_FROM_DEVICE, "ring");
    within_fault = [](CApi&, const moat_fault&) { throw std::runtime_error("out of a callback"); };
    EXPECT_EQ(write(iova, 4097), MOAT_INTERNAL);
    EXPECT_STREQ(error.text, "out of a callback");
    within_fault = nullptr;
    within_error = [](CApi&, const moat_driver_error&) { throw 7; };
    EXPECT_EQ(unmap(iova, 100, MOAT_FROM_DEVICE), MOAT_INTERNAL);
    within_error = nullptr;
    EXPECT_EQ(write(iova, 4096), MOAT_OK) << error.text;
    EXPECT_EQ(unmap(iova, 4096, MOAT_FROM_DEVICE), MOAT_OK) << error.text;
}

TEST_F(CApi, a_device_that_is_detached_reaches_nothing_and_may_come_back) {
    open();
    const std::uint64_t iova = map(memory.data(), 4096);
    moat_device* twice = nullptr;
    EXPECT_EQ(moat_device_attach(container, "00:03.0", &twice, &error), MOAT_BUSY);
    EXPECT_EQ(moat_device_detach(device, &error), MOAT_OK) << error.text;
    ASSERT_EQ(moat_device_attach(container, "0000:00:03.0", &device, &error), MOAT_OK)
        << error.text;
    EXPECT_EQ(write(iova, 4096), MOAT_OK);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
}

TEST_F(CApi, fields_options_and_the_environment_decide_in_this_order) {
    const auto opened = [&] {
        moat_container* other = nullptr;
        moat_limits limits = {};
        limits.size = sizeof limits;
        EXPECT_EQ(moat_container_open(&config, &other, &error), MOAT_OK) << error.text;
        EXPECT_EQ(moat_container_limits(other, &limits, &error), MOAT_OK) << error.text;
        EXPECT_EQ(moat_container_close(other, &error), MOAT_OK);
        return limits;
    };
    EXPECT_EQ(opened().guard_bytes, 4096U);
    EXPECT_EQ(opened().level, MOAT_LEVEL_TRACK);
    EXPECT_EQ(opened().backend, MOAT_BACKEND_SOFT);
    EXPECT_EQ(opened().page_bytes, 4096U);
    EXPECT_EQ(opened().last_iova, (std::uint64_t{1} << 48) - 1);
    config.level = MOAT_LEVEL_EXACT;
    config.guard_bytes = 8192;
    config.guard_before_bytes = 4096;
    config.unmapping = MOAT_UNMAPPING_DEFERRED;
    ::setenv("MOAT_OPTIONS", "guard=32k", 1);
    EXPECT_EQ(opened().guard_bytes, 8192U) << "nobody asked for the environment";
    EXPECT_EQ(opened().guard_before_bytes, 4096U);
    EXPECT_EQ(opened().level, MOAT_LEVEL_EXACT);
    EXPECT_EQ(opened().unmapping, MOAT_UNMAPPING_STRICT) << "level exact unmaps strictly";
    config.options = "guard=16k:level=guard";
    EXPECT_EQ(opened().unmapping, MOAT_UNMAPPING_DEFERRED);
    EXPECT_EQ(opened().guard_bytes, 16384U);
    EXPECT_EQ(opened().level, MOAT_LEVEL_GUARD);
    config.flags = MOAT_READ_ENVIRONMENT;
    EXPECT_EQ(opened().guard_bytes, 32768U);
    ::setenv("MOAT_OPTIONS", "guard=x", 1);
    EXPECT_EQ(moat_container_open(&config, &container, &error), MOAT_INVALID);
    EXPECT_STREQ(error.text,
                 R"(MOAT_OPTIONS: invalid value "x" of "guard"; give a size such as 4k)");
    ::unsetenv("MOAT_OPTIONS");
}

TEST_F(CApi, deferred_unmapping_ends_with_a_flush) {
    open("unmapping=deferred");
    const std::uint64_t iova = map(memory.data(), 4096);
    EXPECT_EQ(write(iova, 4096), MOAT_OK);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
    EXPECT_EQ(moat_flush(container, &error), MOAT_OK);
    EXPECT_EQ(write(iova, 1), MOAT_REFUSED);
}

TEST_F(CApi, level_guard_survives_whatever_is_unmapped) {
    open("level=guard");
    const std::uint64_t iova = map(memory.data(), 4096);
    EXPECT_EQ(write(iova, 4097), MOAT_REFUSED);
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].label, "");
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
    EXPECT_EQ(unmap(iova, 4096), MOAT_NOT_FOUND);
    EXPECT_NE(unmap(0x1234, 1), MOAT_OK);
    EXPECT_NE(unmap(~std::uint64_t{0}, 1), MOAT_OK);
    EXPECT_NE(unmap(0x1000, SIZE_MAX - 0x1000), MOAT_OK);
}

TEST_F(CApi, threads_map_and_unmap_at_the_same_time_and_a_device_is_one_threads) {
    open();
    constexpr unsigned count = 4;
    std::latch ready(count);
    std::atomic<unsigned> failures = 0;
    std::vector<std::thread> threads;
    for (unsigned i = 0; i != count; ++i)
        threads.emplace_back([&, i] {
            moat_error mine = MOAT_ERROR_INIT;
            const std::string label = "ring " + std::to_string(i % 2);
            ready.arrive_and_wait();
            for (unsigned round = 0; round != 200; ++round) {
                std::uint64_t iova = 0;
                if (moat_map(container, memory.data() + i * std::size_t{4096}, 4096,
                             MOAT_BIDIRECTIONAL, label.c_str(), &iova, &mine) != MOAT_OK ||
                    moat_unmap(container, iova, 4096, MOAT_BIDIRECTIONAL, &mine) != MOAT_OK)
                    ++failures;
            }
        });
    for (std::thread& each : threads)
        each.join();
    EXPECT_EQ(failures, 0U);

    const std::uint64_t iova = map(memory.data(), 4096);
    within_fault = [](CApi& test, const moat_fault&) {
        std::thread([&] {
            unsigned char byte = 0;
            EXPECT_EQ(moat_device_read(test.device, 0, &byte, 1, nullptr, nullptr), MOAT_BUSY);
        }).join();
    };
    EXPECT_EQ(write(iova + 4096, 1), MOAT_REFUSED);
    EXPECT_EQ(unmap(iova, 4096), MOAT_OK);
}

TEST_F(CApi, without_callbacks_reports_go_to_standard_error) {
    config.on_fault = nullptr;
    config.on_driver_error = nullptr;
    open("report=json");
    testing::internal::CaptureStderr();
    EXPECT_EQ(write(0x1000, 1), MOAT_REFUSED);
    EXPECT_EQ(unmap(0x1000, 1), MOAT_NOT_FOUND);
    const std::string said = testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(R"({"schema":"moat.fault/1","kind":"dma-never-mapped")"), std::string::npos)
        << said;
    EXPECT_NE(said.find(R"("kind":"not-mapped")"), std::string::npos) << said;
}

TEST_F(CApi, a_report_is_cut_where_its_buffer_ends) {
    open();
    within_fault = [](CApi&, const moat_fault& fault) {
        std::array<char, 8> few{};
        few.back() = 'x';
        std::size_t needed = 0;
        EXPECT_EQ(moat_report_json(fault.report, few.data(), 7, &needed, nullptr), MOAT_OK);
        EXPECT_STREQ(few.data(), R"({"sche)");
        EXPECT_EQ(few.back(), 'x');
        EXPECT_GT(needed, 100U);
        EXPECT_EQ(moat_report_text(fault.report, nullptr, 1, nullptr, nullptr), MOAT_INVALID);
    };
    EXPECT_EQ(write(0x1000, 1), MOAT_REFUSED);
    ASSERT_EQ(faults.size(), 1U);
}

} // namespace
} // namespace moat::tests
