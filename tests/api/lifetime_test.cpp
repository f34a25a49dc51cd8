// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Objects of moat.hpp end in any order, and move. An object that outlives its container does
// nothing, and memory stays until its last mapping ends.
#include "moat/moat.hpp"

#include "model.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <memory>
#include <optional>
#include <vector>

namespace moat::tests {
namespace {

constexpr std::size_t page_bytes = Copier::page;

Container open_soft(ContainerConfig config = {}, int* leaks = nullptr) {
    config.environment = Environment::ignore;
    config.on_fault = [](const Fault&) {};
    config.on_driver_error = [leaks](const DriverError& error) {
        if (leaks != nullptr && error.kind() == DriverErrorKind::leak)
            ++*leaks;
    };
    return Container::open(config).value();
}

/// One of each class.
struct All {
    std::optional<Copier> model{std::in_place, true};
    std::optional<Container> container;
    std::optional<Device> device;
    std::optional<Bar> bar;
    std::optional<Buffer> buffer;
    std::optional<Mapping> mapping;
    std::optional<ListMapping> list;
    std::optional<CoherentBuffer> coherent;
    std::optional<Mapping> region;

    explicit All(Level level, Unmapping unmapping) {
        container.emplace(open_soft({.level = level, .unmapping = unmapping}));
        device.emplace(container->attach("00:03.0", *model).value());
        bar.emplace(device->bar(2).value());
        buffer.emplace(container->allocate(page_bytes).value());
        const std::array<Memory, 2> pieces = {*buffer, *buffer};
        mapping.emplace(container->map(*buffer, bidirectional, "mapping").value());
        list.emplace(container->map_list(pieces, to_device, {}, "list").value());
        coherent.emplace(container->allocate_coherent(page_bytes, "coherent").value());
        region.emplace(container->map_region(*bar, 0, page_bytes, bidirectional, "region").value());
    }

    static constexpr unsigned count = 9;

    void end(unsigned which) {
        switch (which) {
        case 0:
            return model.reset();
        case 1:
            return container.reset();
        case 2:
            return device.reset();
        case 3:
            return bar.reset();
        case 4:
            return buffer.reset();
        case 5:
            return mapping.reset();
        case 6:
            return list.reset();
        case 7:
            return coherent.reset();
        default:
            return region.reset();
        }
    }

    /// Uses the remaining objects and ignores their results.
    void use() {
        std::byte byte{};
        if (container)
            (void)container->flush();
        if (device) {
            (void)device->read(page_bytes, {&byte, 1});
            (void)device->bar(0);
            (void)device->enable_interrupts(1);
        }
        if (bar)
            (void)bar->read8(0);
        if (mapping && device)
            (void)device->write(mapping->iova(), {&byte, 1});
        if (mapping)
            (void)mapping->sync_for_cpu();
        if (list)
            (void)list->sync_for_cpu();
        if (buffer)
            buffer->bytes().front() = std::byte{1};
        if (list)
            (void)list->sync_for_device();
        if (coherent)
            coherent->bytes().front() = std::byte{1};
    }
};

class Orders : public testing::TestWithParam<std::pair<Level, Unmapping>> {};

/// Ends each object first and each other one second, then the rest in both directions.
TEST_P(Orders, any_one_of_them_ends) {
    for (unsigned first = 0; first != All::count; ++first)
        for (unsigned second = 0; second != All::count; ++second)
            for (const bool backwards : {false, true}) {
                All all(GetParam().first, GetParam().second);
                all.end(first);
                all.use();
                all.end(second);
                all.use();
                for (unsigned i = 0; i != All::count; ++i) {
                    all.end(backwards ? All::count - 1 - i : i);
                    all.use();
                }
            }
}

INSTANTIATE_TEST_SUITE_P(Levels, Orders,
                         testing::Values(std::pair(Level::guard, Unmapping::strict),
                                         std::pair(Level::track, Unmapping::deferred),
                                         std::pair(Level::exact, Unmapping::strict)));

TEST(Lifetimes, what_outlives_its_container_does_nothing) {
    int leaks = 0;
    std::optional<Container> pci = open_soft({}, &leaks);
    Device nic = pci->attach("00:03.0").value();
    const Buffer buffer = pci->allocate(page_bytes).value();
    Mapping mapping = pci->map(buffer, bidirectional).value();
    const Mapping other = pci->map(buffer, bidirectional).value();
    pci.reset();
    EXPECT_EQ(leaks, 2);
    EXPECT_EQ(mapping.sync_for_cpu().error().code(), ErrorCode::refused);
    EXPECT_EQ(mapping.unmap().error().code(), ErrorCode::refused);
    EXPECT_EQ(nic.raise_interrupt(0).error().code(), ErrorCode::refused);
    Container next = open_soft({}, &leaks);
    mapping = next.map(buffer, bidirectional).value();
    EXPECT_TRUE(mapping.sync_for_cpu());
    EXPECT_EQ(leaks, 2);
}

TEST(Lifetimes, a_container_that_ends_maps_and_unmaps_nothing) {
    std::optional<Container> pci;
    std::optional<Mapping> leak;
    std::vector<std::byte> memory(page_bytes);
    std::vector<ErrorCode> refusals;
    const auto listen = [&](const DriverError&) {
        refusals.push_back(pci->map(memory, bidirectional).error().code());
        leak.reset();
    };
    pci.emplace(
        Container::open({.environment = Environment::ignore, .on_driver_error = listen}).value());
    leak.emplace(pci->map(memory, bidirectional).value());
    EXPECT_TRUE(pci->close());
    EXPECT_EQ(refusals, std::vector{ErrorCode::busy});
}

TEST(Lifetimes, a_mapping_of_a_past_container_leaves_the_next_one_alone) {
    std::optional<Container> pci = open_soft();
    std::vector<std::byte> memory(page_bytes);
    std::optional<Mapping> past = pci->map(memory, bidirectional).value();
    pci.reset();
    Container next = open_soft();
    Mapping living = next.map(memory, bidirectional).value();
    ASSERT_EQ(living.iova(), past->iova());
    past.reset();
    EXPECT_TRUE(living.sync_for_cpu());
    EXPECT_TRUE(living.unmap());
}

TEST(Lifetimes, a_buffer_stays_until_its_mapping_ends) {
    for (const Unmapping unmapping : {Unmapping::strict, Unmapping::deferred}) {
        Container pci = open_soft({.unmapping = unmapping});
        Device nic = pci.attach("00:03.0").value();
        std::optional<Buffer> buffer = pci.allocate(page_bytes).value();
        const std::uint64_t iova = [&] {
            Mapping mapping = pci.map(*buffer, bidirectional).value();
            buffer.reset();
            const std::vector<std::byte> data(page_bytes, std::byte{0xee});
            EXPECT_TRUE(nic.write(mapping.iova(), data)) << "AddressSanitizer sees freed memory";
            return mapping.iova();
        }();
        std::byte byte{};
        EXPECT_FALSE(nic.read(iova, {&byte, 1})) << "freed, so flushed as well";
    }
}

TEST(Lifetimes, everything_moves) {
    Container first = open_soft();
    Container pci(std::move(first));
    // NOLINTNEXTLINE(bugprone-use-after-move)
    EXPECT_EQ(first.allocate(page_bytes).error().code(), ErrorCode::refused);
    EXPECT_EQ(first.close().error().code(), ErrorCode::refused);
    Buffer one = pci.allocate(page_bytes).value();
    Buffer two = pci.allocate(2 * page_bytes).value();
    std::swap(one, two);
    EXPECT_EQ(one.size(), 2 * page_bytes);
    Mapping a = pci.map(one, bidirectional, "a").value();
    Mapping b = pci.map(two, bidirectional, "b").value();
    const std::uint64_t of_a = a.iova();
    b = std::move(a);
    EXPECT_EQ(b.iova(), of_a);
    EXPECT_TRUE(b.sync_for_cpu());
    EXPECT_FALSE(a.sync_for_cpu()); // NOLINT(*-use-after-move)
    std::vector<Mapping> many;
    for (int i = 0; i != 10; ++i)
        many.push_back(pci.map(two, to_device).value());
    many.erase(many.begin(), many.begin() + 5);
    EXPECT_TRUE(std::ranges::all_of(many, [](Mapping& each) { return each.unmap().has_value(); }));
    int leaks = 0;
    Container other = open_soft({}, &leaks);
    pci = std::move(other);
    EXPECT_FALSE(b.sync_for_cpu()) << "its container was replaced";
    pci = open_soft();
    EXPECT_EQ(leaks, 0);
}

TEST(Lifetimes, a_device_may_end_in_its_own_access) {
    std::optional<Device> nic;
    std::optional<Container> pci = Container::open({.environment = Environment::ignore,
                                                    .on_fault = [&](const Fault&) { nic.reset(); }})
                                       .value();
    nic.emplace(pci->attach("00:03.0").value());
    std::byte byte{};
    EXPECT_FALSE(nic->read(page_bytes, {&byte, 1}));
    EXPECT_FALSE(nic.has_value());
    EXPECT_TRUE(pci->attach("00:03.0")) << "it is detached by now";
}

TEST(LifetimesDeathTest, a_listener_does_not_end_its_container) {
    std::optional<Container> pci;
    pci.emplace(Container::open({.environment = Environment::ignore,
                                 .on_fault = [&](const Fault&) { pci.reset(); }})
                    .value());
    Device nic = pci->attach("00:03.0").value();
    std::byte byte{};
    EXPECT_DEATH((void)nic.read(page_bytes, {&byte, 1}),
                 "a listener does not end its own container");
}

} // namespace
} // namespace moat::tests
