// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat.hpp: every function that takes a number, by a soft container at each level.
#include "moat/moat.hpp"

#include "contract.hpp"

#include <algorithm>
#include <array>
#include <gtest/gtest.h>
#include <memory>

namespace moat::tests {
namespace {

constexpr std::size_t page = 4096;

class Registers final : public DeviceModel {
  public:
    [[nodiscard]] std::span<std::byte> bar_memory(unsigned index) override {
        return index == 0 ? std::span<std::byte>(memory_) : std::span<std::byte>();
    }

    [[nodiscard]] std::uint64_t read(unsigned, std::uint64_t offset, unsigned width) override {
        EXPECT_TRUE(offset % width == 0 && offset < page && width <= page - offset);
        return 0;
    }

    void write(unsigned, std::uint64_t offset, unsigned width, std::uint64_t) override {
        EXPECT_TRUE(offset % width == 0 && offset < page && width <= page - offset);
    }

  private:
    alignas(page) std::array<std::byte, page> memory_{};
};

/// A soft container with a device that the test plays, one with a model, and two pages mapped; its
/// listeners render each report.
struct Soft {
    static ContainerConfig config_of(Level level) {
        return {.level = level,
                .environment = Environment::ignore,
                .on_fault = [](const Fault& fault) { EXPECT_FALSE(fault.text().empty()); },
                .on_driver_error =
                    [](const DriverError& error) { EXPECT_FALSE(error.json().empty()); }};
    }

    explicit Soft(Level level) : container(Container::open(config_of(level)).value()) {
        std::ranges::fill(buffer.bytes(), std::byte{7});
        map();
        EXPECT_TRUE(modelled.enable_interrupts(1));
    }

    void map() { mapping = container.map(buffer, bidirectional, "ring").value(); }

    /// The mapping exists, and the device reads its contents.
    [[nodiscard]] std::string state() {
        std::byte byte{};
        const auto read = device.read(mapping.iova() + 2 * page - 1, {&byte, 1});
        return read ? std::to_string(std::to_integer<int>(byte)) : "unreachable";
    }

    Registers model;
    Container container;
    Device device = container.attach("00:03.0").value();
    Device modelled = container.attach("00:04.0", model).value();
    Bar bar = modelled.bar(0).value();
    Buffer buffer = container.allocate(2 * page).value();
    Mapping mapping = container.map(buffer, bidirectional).value();
};

Argument number(const char* name, std::uint64_t good) {
    return {.name = name, .good = good};
}

std::vector<Row> mappings(Level level) {
    const auto soft = std::make_shared<Soft>(level);
    const auto state = [=] { return soft->state(); };
    const Argument direction = {.name = "direction", .good = 2, .bits = 8};
    const std::uint64_t iova = soft->mapping.iova();
    const bool exact = level == Level::exact;
    return {
        {.name = "Container::map",
         .arguments = {number("bytes", 2 * page), direction},
         // A map for a device that reads may copy the memory; a large size exceeds the memory that
         // exists.
         .call =
             [=](Values v) {
                 const bool large = v[0] > (1U << 20);
                 return outcome(soft->container.map(
                     std::span(large_memory().data(), v[0]),
                     large && v[1] == 0 ? from_device : static_cast<Direction>(v[1])));
             },
         .state = state},
        {.name = "Container::unmap",
         .arguments = {number("iova", iova), number("bytes", 2 * page), direction},
         .call =
             [=](Values v) {
                 const auto done = soft->container.unmap(v[0], v[1], static_cast<Direction>(v[2]));
                 if (done) {
                     (void)soft->mapping.release();
                     soft->map();
                 }
                 return outcome(done);
             },
         .state = state},
        {.name = "Container::sync_for_device",
         .arguments = {number("iova", iova), number("offset", 0), number("bytes", page)},
         .call =
             [=](Values v) { return outcome(soft->container.sync_for_device(v[0], v[1], v[2])); },
         .state = state},
        {.name = "Container::sync_for_cpu",
         .arguments = {number("iova", iova), number("offset", 0), number("bytes", page)},
         .call = [=](Values v) { return outcome(soft->container.sync_for_cpu(v[0], v[1], v[2])); },
         .state = state},
        {.name = "Mapping::sync_for_cpu", // the error names the address
         .arguments = {{.name = "offset", .good = 0, .named = false}, number("bytes", page)},
         .call = [=](Values v) { return outcome(soft->mapping.sync_for_cpu(v[0], v[1])); },
         .state = state},
        {.name = "Container::poison",
         .arguments = {number("iova", iova), number("bytes", page)},
         .call =
             [=](Values v) {
                 const auto done = soft->container.poison(v[0], v[1]);
                 if (done) {
                     EXPECT_TRUE(soft->container.unpoison(v[0], v[1]));
                 }
                 return outcome(done);
             },
         .state = state,
         .good_succeeds = exact},
        {.name = "Mapping::poison",
         .arguments = {number("offset", 0), number("bytes", page)},
         .call =
             [=](Values v) {
                 const auto done = soft->mapping.poison(v[0], v[1]);
                 if (done) {
                     EXPECT_TRUE(soft->mapping.unpoison(v[0], v[1]));
                 }
                 return outcome(done);
             },
         .state = state,
         .good_succeeds = exact},
    };
}

std::vector<Row> lists() {
    const auto soft = std::make_shared<Soft>(Level::track);
    return {
        {.name = "Container::map_list",
         .arguments = {number("bytes", page), number("longest", 1 << 20),
                       number("boundary", 1 << 20), number("guard", page)},
         .call =
             [=](Values v) {
                 const std::array<Memory, 2> pieces = {soft->buffer,
                                                       std::span(large_memory().data(), v[0])};
                 return outcome(soft->container.map_list(pieces, from_device,
                                                         {.longest = ByteCount(v[1]),
                                                          .boundary = ByteCount(v[2]),
                                                          .guard = ByteCount(v[3])}));
             },
         .state = [=] { return soft->state(); }},
        {.name = "Container::map_region",
         .arguments = {number("offset", 0),
                       number("bytes", page),
                       {.name = "direction", .good = 2, .bits = 8}},
         .call =
             [=](Values v) {
                 return outcome(soft->container.map_region(soft->bar, v[0], v[1],
                                                           static_cast<Direction>(v[2])));
             },
         .state = [=] { return soft->state(); }},
        {.name = "Container::allocate and allocate_coherent",
         .arguments = {{.name = "bytes", .good = page, .named = false}},
         .call = [=](Values v) -> Outcome {
             if (depends_on_host(v[0]))
                 return returned;
             const auto buffer = soft->container.allocate(v[0]);
             EXPECT_EQ(soft->container.allocate_coherent(v[0]).has_value(), buffer.has_value());
             return outcome(buffer);
         }},
    };
}

std::vector<Row> devices() {
    const auto soft = std::make_shared<Soft>(Level::track);
    const auto state = [=] { return soft->state(); };
    return {
        // The memory has as many bytes: the device may access all that the IOMMU permits.
        {.name = "Device::read and write",
         .arguments = {number("iova", soft->mapping.iova()),
                       {.name = "bytes", .good = 16, .named = false}},
         .call =
             [=](Values v) {
                 const std::size_t bytes = std::min<std::uint64_t>(v[1], 1ULL << 33);
                 const auto memory = large_memory().first(bytes);
                 const auto read = soft->device.read(v[0], memory);
                 EXPECT_EQ(soft->device.write(v[0], memory).has_value(), read.has_value());
                 return read || read.error().code() != ErrorCode::refused ? outcome(read)
                                                                          : returned;
             },
         .state = state},
        {.name = "Device::bar",
         .arguments = {{.name = "bar", .good = 0, .bits = 32}},
         .call = [=](Values v) { return outcome(soft->modelled.bar(v[0])); },
         .state = state},
        {.name = "Device::enable_interrupts",
         .arguments = {{.name = "wanted", .good = 1, .bits = 32, .named = false}},
         .call =
             [=](Values v) {
                 return outcome(soft->modelled.enable_interrupts(static_cast<unsigned>(v[0])));
             }},
        {.name = "Device::raise_interrupt and take_interrupt",
         .arguments = {{.name = "vector", .good = 0, .bits = 32}},
         .call =
             [=](Values v) {
                 const auto vector = static_cast<unsigned>(v[0]);
                 const auto raised = soft->modelled.raise_interrupt(vector);
                 EXPECT_EQ(soft->modelled.take_interrupt(vector).has_value(), raised.has_value());
                 return outcome(raised);
             }},
        {.name = "Bar::read and write",
         .arguments = {number("offset", 8)},
         .call =
             [=](Values v) {
                 const Bar& bar = soft->bar;
                 EXPECT_EQ(bar.read8(v[0]).has_value(), v[0] < page);
                 EXPECT_EQ(bar.write16(v[0], 1).has_value(), v[0] < page && v[0] % 2 == 0);
                 EXPECT_EQ(bar.read32(v[0]).has_value(), v[0] < page && v[0] % 4 == 0);
                 return outcome(bar.write64(v[0], 1));
             }},
    };
}

/// Opens a container with one field changed, and uses it: an accepted config must work.
Outcome open_with(const ContainerConfig& config) {
    auto opened = Container::open(config);
    if (!opened)
        return outcome(opened);
    Device device = opened->attach("00:03.0").value();
    EXPECT_TRUE(opened->limits());
    alignas(page) std::array<std::byte, page> memory{};
    for (int round = 0; round != 3; ++round) {
        std::uint64_t iova = 0;
        if (const auto mapping = opened->map(std::span(memory).first(64), bidirectional, "a"))
            iova = mapping->iova();
        EXPECT_TRUE(opened->flush());
        EXPECT_FALSE(device.write(iova, std::span(memory).first(1)));
    }
    return returned;
}

std::vector<Row> configs() {
    std::vector<Row> rows;
    const auto field = [&](const char* name, std::uint64_t good, unsigned bits,
                           void (*set)(ContainerConfig&, std::uint64_t)) {
        rows.push_back(
            {.name = std::string("ContainerConfig::") + name,
             .arguments =
                 {{.name = name, .good = good, .bits = bits, .named = false, .more = {1, 2, 3}},
                  {.name = "level", .good = 1, .bits = 2, .named = false}},
             .call = [=](Values v) {
                 ContainerConfig config = Soft::config_of(static_cast<Level>(v[1]));
                 set(config, v[0]);
                 return open_with(config);
             }});
    };
    using Config = ContainerConfig;
    using Value = std::uint64_t;
    field("backend", 0, 8, [](Config& to, Value v) { to.backend = static_cast<Backend>(v); });
    field("level", 1, 8, [](Config& to, Value v) { to.level = static_cast<Level>(v); });
    field("guard", page, 64, [](Config& to, Value v) { to.guard = ByteCount(v); });
    field("guard_before", 0, 64, [](Config& to, Value v) { to.guard_before = ByteCount(v); });
    field("placement", 0, 8, [](Config& to, Value v) { to.placement = static_cast<Placement>(v); });
    field("unmapping", 0, 8, [](Config& to, Value v) { to.unmapping = static_cast<Unmapping>(v); });
    field("quarantine", 0, 64, [](Config& to, Value v) { to.quarantine = ByteCount(v); });
    field("dma_mask", ~Value{0}, 64, [](Config& to, Value v) { to.dma_mask = v; });
    field("history", 1024, 32,
          [](Config& to, Value v) { to.history = static_cast<std::uint32_t>(v); });
    field("stacks", 0, 32, [](Config& to, Value v) { to.stacks = static_cast<std::uint32_t>(v); });
    field("tables", 4096, 32,
          [](Config& to, Value v) { to.tables = static_cast<std::uint32_t>(v); });
    return rows;
}

TEST(MoatHppContracts, mappings_take_any_number) {
    for (const Level level : {Level::guard, Level::track, Level::exact})
        expect_contracts([=] { return mappings(level); });
}

TEST(MoatHppContracts, lists_and_memory_take_any_number) {
    expect_contracts(lists);
}

TEST(MoatHppContracts, devices_take_any_number) {
    expect_contracts(devices);
}

TEST(MoatHppContracts, configs_take_any_number) {
    expect_contracts(configs);
}

} // namespace
} // namespace moat::tests
