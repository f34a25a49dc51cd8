// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Mappings, lists, reports and options of moat.hpp, in a container whose devices the test plays.
#include "moat/moat.hpp"

#include "sanitized.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace moat::tests {
namespace {

using namespace moat::literals;

constexpr std::size_t page = 4096;

/// A container that records the arguments of its listeners.
class Containers : public testing::Test {
  public:
    Container open(ContainerConfig config = {}) {
        config.environment = Environment::ignore;
        config.on_fault = [this](const Fault& fault) {
            faults.push_back(fault);
            labels.emplace_back(fault.label());
        };
        config.on_driver_error = [this](const DriverError& error) {
            errors.push_back(error.kind());
            labels.emplace_back(error.label());
        };
        return Container::open(config).value();
    }

    static Result<void> write(Device& device, std::uint64_t iova, std::size_t bytes) {
        return device.write(iova, std::vector<std::byte>(bytes, std::byte{0xee}));
    }

    std::vector<Fault> faults;
    std::vector<DriverErrorKind> errors;
    std::vector<std::string> labels;
};

TEST_F(Containers, a_stray_is_reported_with_its_buffer) {
    Container pci = open();
    Device nic = pci.attach("0000:00:03.0").value();
    const Buffer ring = pci.allocate(page).value();
    Mapping rx = pci.map(ring, from_device, "rx ring").value();
    const auto stray = write(nic, rx.iova(), page + 64);
    ASSERT_FALSE(stray);
    EXPECT_EQ(stray.error().code(), ErrorCode::refused);
    ASSERT_NE(stray.error().find("done"), nullptr);
    EXPECT_EQ(*stray.error().find("done"), page);
    EXPECT_TRUE(rx.sync_for_cpu());
    EXPECT_EQ(ring.bytes().back(), std::byte{0xee});
    ASSERT_EQ(faults.size(), 1U);
    EXPECT_EQ(faults[0].kind(), FaultKind::out_of_bounds_right);
    EXPECT_EQ(faults[0].iova(), rx.iova() + page);
    EXPECT_EQ(faults[0].bytes(), 64U);
    EXPECT_EQ(faults[0].label(), "rx ring");
    EXPECT_NE(faults[0].summary().find("past the end of \"rx ring\""), std::string::npos);
    EXPECT_EQ(faults[0].json().find(R"({"schema":"moat.fault/1")"), 0U);
    std::ostringstream log;
    log << faults[0];
    EXPECT_EQ(log.str(), faults[0].text());
    EXPECT_NE(log.str().find("ERROR: moat: dma-buffer-overflow"), std::string::npos);
}

TEST_F(Containers, any_bytes_can_be_mapped_and_each_direction_is_kept) {
    Container pci = open();
    Device nic = pci.attach("00:03.0").value();
    alignas(page) static std::array<std::byte, page> array{};
    std::vector<std::byte> vector(100);
    const Mapping reads = pci.map(array, to_device, "commands").value();
    Mapping writes = pci.map(vector, from_device).value();
    EXPECT_EQ(writes.size(), 100U);
    EXPECT_FALSE(write(nic, reads.iova(), 1));
    EXPECT_EQ(faults.back().kind(), FaultKind::permission);
    std::byte seen{};
    EXPECT_TRUE(nic.read(reads.iova(), {&seen, 1}));
    EXPECT_TRUE(write(nic, writes.iova(), 100));
    EXPECT_TRUE(writes.sync_for_cpu());
    EXPECT_EQ(vector[99], std::byte{0xee});
}

TEST_F(Containers, labels_are_copied) {
    Container pci = open();
    Device nic = pci.attach("00:03.0").value();
    const Buffer buffer = pci.allocate(page).value();
    std::string label = "first label";
    const Mapping first = pci.map(buffer, bidirectional, label).value();
    label.replace(0, 5, "other"); // the same characters at the same place
    const Mapping second = pci.map(buffer, bidirectional, label).value();
    label.assign(200, 'x');
    EXPECT_FALSE(write(nic, first.iova() + page, 1));
    EXPECT_FALSE(write(nic, second.iova() + page, 1));
    EXPECT_EQ(labels, (std::vector<std::string>{"first label", "other label"}));
}

TEST_F(Containers, more_labels_than_are_kept_are_one_label) {
    if (sanitized)
        GTEST_SKIP() << "SKIPPED: 70,000 mappings take a sanitizer a minute";
    Container pci = open();
    const Buffer buffer = pci.allocate(page).value();
    for (int i = 0; i != 70'000; ++i)
        ASSERT_TRUE(pci.map(buffer, bidirectional, "label " + std::to_string(i)));
    Mapping last = pci.map(buffer, bidirectional, "one more").value();
    const Mapping known = pci.map(buffer, bidirectional, "label 1").value();
    EXPECT_TRUE(pci.report_living());
    std::ranges::sort(labels); // they come by address
    EXPECT_EQ(labels, (std::vector<std::string>{"(too many different labels)", "label 1"}));
}

TEST_F(Containers, what_a_driver_does_wrong_is_an_error_and_reported) {
    Container pci = open();
    alignas(page) static std::array<std::byte, page> memory{}; // a released Buffer stays released
    Mapping mapping = pci.map(memory, bidirectional, "ring").value();
    EXPECT_EQ(mapping.sync_for_cpu(page - 1, 2).error().code(), ErrorCode::out_of_range);
    const std::uint64_t iova = mapping.release();
    EXPECT_FALSE(mapping.sync_for_cpu()) << "it was released";
    EXPECT_EQ(pci.unmap(iova, 2 * page, bidirectional).error().code(), ErrorCode::mismatch);
    EXPECT_TRUE(pci.unmap(iova, page, bidirectional));
    EXPECT_EQ(pci.unmap(iova, page, bidirectional).error().code(), ErrorCode::not_found);
    EXPECT_EQ(errors, (std::vector{DriverErrorKind::outside, DriverErrorKind::wrong_size,
                                   DriverErrorKind::not_mapped}));
}

TEST_F(Containers, a_list_is_one_range_and_its_segments_are_reported) {
    Container pci = open();
    Device nic = pci.attach("00:03.0").value();
    const Buffer a = pci.allocate(page).value();
    const Buffer b = pci.allocate(100).value();
    const std::array<Memory, 2> pieces = {a, b};
    {
        ListMapping joined = pci.map_list(pieces, bidirectional, {}, "list").value();
        EXPECT_EQ(joined.segments().size(), 1U) << "addresses follow one another";
        EXPECT_TRUE(write(nic, joined.iova(), page + 100));
        EXPECT_TRUE(joined.sync_for_cpu());
        EXPECT_EQ(b.bytes()[99], std::byte{0xee});
    }
    ListMapping apart = pci.map_list(pieces, bidirectional, {.guard = 4_KiB}, "parts").value();
    ASSERT_EQ(apart.segments().size(), 2U);
    EXPECT_TRUE(apart.sync_for_cpu());
    EXPECT_TRUE(apart.sync_for_device());
    EXPECT_FALSE(write(nic, apart.segments()[0].iova.value(), page + 1));
    EXPECT_EQ(labels.back(), "parts");
    EXPECT_TRUE(apart.unmap());
    EXPECT_FALSE(apart.unmap());
    EXPECT_FALSE(write(nic, apart.segments()[1].iova.value(), 1));
    EXPECT_TRUE(errors.empty());
}

TEST_F(Containers, coherent_memory_is_aligned_to_its_size_and_shared) {
    Container pci = open();
    Device nic = pci.attach("00:03.0").value();
    const CoherentBuffer ring = pci.allocate_coherent(3 * page, "ring").value();
    EXPECT_EQ(ring.iova() % (4 * page), 0U);
    EXPECT_TRUE(write(nic, ring.iova(), 3 * page));
    EXPECT_EQ(ring.as<std::uint32_t>().back(), 0xeeeeeeeeU);
    EXPECT_FALSE(write(nic, ring.iova() + 3 * page, 1));
    EXPECT_EQ(labels.back(), "ring");
}

TEST_F(Containers, poisoned_bytes_are_out_of_reach_until_they_are_not) {
    Container pci = open({.level = Level::exact});
    Device nic = pci.attach("00:03.0").value();
    const Buffer buffer = pci.allocate(page).value();
    Mapping pool = pci.map(buffer, bidirectional, "pool").value();
    EXPECT_TRUE(pool.poison(64, 64));
    EXPECT_TRUE(write(nic, pool.iova(), 64));
    EXPECT_FALSE(write(nic, pool.iova() + 127, 1));
    EXPECT_EQ(faults.back().kind(), FaultKind::poisoned);
    EXPECT_TRUE(pool.unpoison(64, 64));
    EXPECT_TRUE(write(nic, pool.iova() + 127, 1));
    EXPECT_EQ(pool.poison(page, 1).error().code(), ErrorCode::out_of_range);
    Container track = open();
    Mapping below = track.map(buffer, bidirectional).value();
    EXPECT_EQ(below.poison(0, 1).error().code(), ErrorCode::unsupported);
}

TEST_F(Containers, a_quarantine_keeps_addresses_out_of_use) {
    Container pci = open({.quarantine = 1_MiB});
    Device nic = pci.attach("00:03.0").value();
    const Buffer buffer = pci.allocate(page).value();
    const std::uint64_t old = pci.map(buffer, bidirectional, "old").value().iova();
    EXPECT_NE(pci.map(buffer, bidirectional, "new").value().iova(), old);
    EXPECT_FALSE(write(nic, old, 1));
    EXPECT_EQ(faults.back().kind(), FaultKind::use_after_unmap);
}

TEST_F(Containers, fields_options_and_the_environment_decide_in_this_order) {
    ::setenv("MOAT_OPTIONS", "guard=32k", 1);
    ContainerConfig config = {.level = Level::exact, .guard = 8_KiB};
    const auto limits = [&] { return Container::open(config).value().limits().value(); };
    EXPECT_EQ(limits().guard, 32_KiB);
    config.environment = Environment::ignore;
    EXPECT_EQ(limits().guard, 8_KiB);
    EXPECT_EQ(limits().level, Level::exact);
    config.options = "guard=16k:level=guard";
    EXPECT_EQ(limits().guard, 16_KiB);
    EXPECT_EQ(limits().level, Level::guard);
    EXPECT_EQ(limits().backend, Backend::soft);
    ::setenv("MOAT_OPTIONS", "guard=x", 1);
    config.environment = Environment::read;
    const auto wrong = Container::open(config);
    ::unsetenv("MOAT_OPTIONS");
    ASSERT_FALSE(wrong);
    EXPECT_EQ(wrong.error().sentence().find("MOAT_OPTIONS: "), 0U) << wrong.error().sentence();
    EXPECT_NE(wrong.error().sentence().find("\"guard\""), std::string_view::npos);
}

TEST_F(Containers, record_their_mappings_if_the_options_name_a_file) {
    const std::string file = testing::TempDir() + "container_test.rec";
    const std::string options = "level=guard:record=" + file;
    {
        Container pci =
            Container::open({.options = options, .environment = Environment::ignore}).value();
        const Buffer buffer = pci.allocate(page).value();
        const Mapping ring = pci.map(buffer, to_device, "ring").value();
    }
    std::ifstream in(file, std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(in), {});
    EXPECT_TRUE(bytes.starts_with("moatrec"));
    EXPECT_NE(bytes.find("ring"), std::string::npos);
    (void)std::remove(file.c_str());
    const auto refused = Container::open({.options = "record=/nowhere/file"});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::io);
}

TEST_F(Containers, numbers_that_do_not_exist_are_unsupported) {
    const auto code = [](const ContainerConfig& config) {
        const auto opened = Container::open(config);
        return opened ? std::optional<ErrorCode>() : opened.error().code();
    };
    EXPECT_EQ(code({.backend = static_cast<Backend>(5)}), ErrorCode::unsupported);
    EXPECT_EQ(code({.level = static_cast<Level>(3)}), ErrorCode::unsupported);
    EXPECT_EQ(code({.placement = static_cast<Placement>(2)}), ErrorCode::unsupported);
    EXPECT_EQ(code({.unmapping = static_cast<Unmapping>(2)}), ErrorCode::unsupported);
    EXPECT_EQ(code({.history = 0}), ErrorCode::unsupported);
    EXPECT_EQ(code({.tables = 0}), ErrorCode::unsupported);
    EXPECT_EQ(code({.guard = 1_TiB, .dma_mask = 0xffffff}), ErrorCode::out_of_range);
    Container pci = open();
    const Buffer buffer = pci.allocate(page).value();
    EXPECT_EQ(pci.map(buffer, static_cast<Direction>(3)).error().code(), ErrorCode::unsupported);
    EXPECT_EQ(pci.unmap(page, page, static_cast<Direction>(3)).error().code(),
              ErrorCode::unsupported);
    EXPECT_EQ(pci.map(std::span<std::byte>(), to_device).error().code(), ErrorCode::empty);
    EXPECT_EQ(pci.map(std::span(static_cast<std::byte*>(nullptr), 1), to_device).error().code(),
              ErrorCode::out_of_range);
    EXPECT_EQ(pci.allocate(0).error().code(), ErrorCode::empty);
    EXPECT_EQ(pci.allocate(~std::size_t{0}).error().code(), ErrorCode::no_memory);
    for (const char* address : {"", "x", "00:03", "0000:00:20.0", "00:03.8", "00:03.0 "})
        EXPECT_EQ(pci.attach(address).error().code(), ErrorCode::not_found) << address;
}

TEST_F(Containers, what_a_listener_throws_is_printed_and_goes_no_further) {
    Container pci =
        Container::open(
            {.environment = Environment::ignore,
             .on_fault = [](const Fault&) { throw std::runtime_error("from on_fault"); },
             .on_driver_error = [](const DriverError&) { throw 7; }})
            .value();
    Device nic = pci.attach("00:03.0").value();
    testing::internal::CaptureStderr();
    EXPECT_EQ(write(nic, page, 1).error().code(), ErrorCode::refused);
    EXPECT_EQ(pci.unmap(page, page, bidirectional).error().code(), ErrorCode::not_found);
    const std::string printed = testing::internal::GetCapturedStderr();
    EXPECT_NE(printed.find("from on_fault"), std::string::npos) << printed;
    EXPECT_NE(printed.find("no std::exception"), std::string::npos) << printed;
    const Buffer buffer = pci.allocate(page).value();
    const Mapping mapping = pci.map(buffer, bidirectional).value();
    EXPECT_TRUE(write(nic, mapping.iova(), page)) << "the container goes on";
}

TEST_F(Containers, without_listeners_reports_go_to_standard_error) {
    Container pci =
        Container::open({.options = "report=json", .environment = Environment::ignore}).value();
    Device nic = pci.attach("00:03.0").value();
    testing::internal::CaptureStderr();
    EXPECT_FALSE(write(nic, page, 1));
    EXPECT_FALSE(pci.unmap(page, page, bidirectional));
    const std::string printed = testing::internal::GetCapturedStderr();
    EXPECT_NE(printed.find(R"("kind":"dma-never-mapped")"), std::string::npos) << printed;
    EXPECT_NE(printed.find(R"("kind":"not-mapped")"), std::string::npos) << printed;
}

TEST_F(Containers, a_listener_may_map_unmap_and_access) {
    std::optional<Container> pci;
    std::optional<Device> nic;
    std::optional<Mapping> victim;
    int called = 0;
    const auto listen = [&](const Fault&) {
        if (++called != 1)
            return;
        victim.reset();
        const Buffer buffer = pci->allocate(page).value();
        victim.emplace(pci->map(buffer, bidirectional, "new").value());
        EXPECT_TRUE(write(*nic, victim->iova(), 8)) << "the device that strayed";
        EXPECT_FALSE(write(*nic, victim->iova(), page + 1)) << "a fault inside of a fault";
        EXPECT_EQ(nic->detach().error().code(), ErrorCode::busy);
        EXPECT_EQ(pci->close().error().code(), ErrorCode::busy);
        EXPECT_TRUE(pci->attach("00:04.0").value().detach());
    };
    pci.emplace(Container::open({.environment = Environment::ignore, .on_fault = listen}).value());
    nic.emplace(pci->attach("00:03.0").value());
    const Buffer buffer = pci->allocate(page).value();
    victim.emplace(pci->map(buffer, bidirectional, "old").value());
    EXPECT_FALSE(write(*nic, victim->iova(), page + 1));
    EXPECT_EQ(called, 2);
}

} // namespace
} // namespace moat::tests
