// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat.h: every function and every field of its structs, through libmoat.so and nothing else.
// Programmer's errors by contract, so not rows: pointers to something else, and sizes of structs
// and memory that are larger than the memory behind the pointer.
#include "moat/moat.h"

#include "contract.hpp"

#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <memory>

namespace moat::tests {
namespace {

constexpr std::size_t page = 4096;

/// An error of moat.h as an Error: the code, and the values that its text names.
Outcome outcome_of(moat_code code, const moat_error& error) {
    EXPECT_EQ(code, error.code);
    if (code == MOAT_OK)
        return returned;
    EXPECT_NE(code, MOAT_INTERNAL) << error.text;
    static std::array<std::array<char, 32>, Error::most_values> names;
    std::array<ErrorValue, Error::most_values> values{};
    std::size_t count = 0;
    for (const char* at = std::strstr(error.text, "=0x"); at != nullptr && count != values.size();
         at = std::strstr(at + 1, "=0x")) {
        std::snprintf(names[count].data(), names[count].size(), "value%zu", count);
        values[count] = {names[count].data(), std::strtoull(at + 1, nullptr, 16)};
        ++count;
    }
    const ErrorCode kind =
        code == MOAT_INVALID ? ErrorCode::unsupported : static_cast<ErrorCode>(code - 1);
    static std::array<char, sizeof error.text> text;
    std::memcpy(text.data(), error.text, text.size());
    return Error(kind, text.data(), values[0], values[1], values[2], values[3]);
}

/// A soft container with a device, and two pages mapped; its callbacks render each report.
class Container {
  public:
    explicit Container(std::int32_t level) : level_(level) { open(); }

    ~Container() { EXPECT_EQ(moat_container_close(container, nullptr), MOAT_OK); }

    Container(const Container&) = delete;
    Container& operator=(const Container&) = delete;

    static moat_config config_of(std::int32_t level) {
        moat_config config;
        EXPECT_EQ(moat_config_init(&config, sizeof config), MOAT_OK);
        config.level = level;
        config.on_fault = [](void*, const moat_fault* fault) { render(fault->report); };
        config.on_driver_error = [](void*, const moat_driver_error* found) {
            render(found->report);
        };
        return config;
    }

    void open() {
        const moat_config config = config_of(level_);
        ASSERT_EQ(moat_container_open(&config, &container, nullptr), MOAT_OK);
        ASSERT_EQ(moat_device_attach(container, "0000:00:03.0", &device, nullptr), MOAT_OK);
        map();
    }

    void map() {
        ASSERT_EQ(moat_map(container, memory.data(), 2 * page, MOAT_BIDIRECTIONAL, "ring", &iova,
                           nullptr),
                  MOAT_OK);
    }

    /// The mapping exists, and the device reads its contents.
    [[nodiscard]] std::string state() {
        std::array<unsigned char, 4> bytes{};
        std::size_t done = 0;
        const moat_code code = moat_device_read(device, iova + 2 * page - 4, bytes.data(),
                                                bytes.size(), &done, nullptr);
        return std::to_string(code) + " " + std::to_string(bytes[3]);
    }

    alignas(page) std::array<unsigned char, 2 * page> memory = [] {
        std::array<unsigned char, 2 * page> bytes;
        bytes.fill(7);
        return bytes;
    }();
    moat_container* container = nullptr;
    moat_device* device = nullptr;
    std::uint64_t iova = 0;
    moat_error error = MOAT_ERROR_INIT;

  private:
    static void render(const moat_report* report) {
        std::array<char, 64> text{};
        std::size_t needed = 0;
        EXPECT_EQ(moat_report_text(report, text.data(), text.size(), &needed, nullptr), MOAT_OK);
        EXPECT_EQ(moat_report_json(report, text.data(), text.size(), &needed, nullptr), MOAT_OK);
    }

    const std::int32_t level_;
};

std::vector<Row> mappings(std::int32_t level) {
    const auto soft = std::make_shared<Container>(level);
    const auto state = [=] { return soft->state(); };
    const Argument direction = {.name = "direction", .good = MOAT_BIDIRECTIONAL, .bits = 32};
    const std::vector<Argument> range = {{.name = "iova", .good = soft->iova},
                                         {.name = "bytes", .good = 2 * page}};
    return {
        {.name = "moat_map",
         .arguments = {{.name = "bytes", .good = 2 * page}, direction},
         .call =
             [=](Values v) {
                 std::uint64_t iova = 0;
                 const auto way = static_cast<std::int32_t>(v[1]);
                 // A map for a device that reads may copy the memory; a large size exceeds the
                 // memory that exists.
                 const bool large = v[0] > (1U << 20);
                 const moat_code code = moat_map(soft->container, large_memory().data(), v[0],
                                                 large && way == 0 ? MOAT_FROM_DEVICE : way,
                                                 nullptr, &iova, &soft->error);
                 if (code == MOAT_OK) {
                     EXPECT_EQ(moat_unmap(soft->container, iova, v[0],
                                          large && way == 0 ? MOAT_FROM_DEVICE : way, nullptr),
                               MOAT_OK);
                 }
                 return outcome_of(code, soft->error);
             },
         .state = state},
        {.name = "moat_allocate_coherent",
         .arguments = {{.name = "bytes", .good = page, .named = false}},
         .call = [=](Values v) -> Outcome {
             if (depends_on_host(v[0]))
                 return returned;
             void* ring = nullptr;
             std::uint64_t iova = 0;
             const moat_code code =
                 moat_allocate_coherent(soft->container, v[0], "", &ring, &iova, &soft->error);
             const Outcome outcome = outcome_of(code, soft->error);
             if (code == MOAT_OK) {
                 EXPECT_EQ(moat_free_coherent(soft->container, iova, nullptr), MOAT_OK);
             }
             return outcome;
         },
         .state = state},
        {.name = "moat_free_coherent",
         .arguments = {{.name = "iova", .good = soft->iova}},
         .call =
             [=](Values v) {
                 return outcome_of(moat_free_coherent(soft->container, v[0], &soft->error),
                                   soft->error);
             },
         .state = state,
         .good_succeeds = false},
        {.name = "moat_map_region",
         .arguments = {{.name = "bar", .good = 0, .bits = 32, .named = false},
                       {.name = "offset", .good = 0, .named = false},
                       {.name = "bytes", .good = page, .named = false},
                       direction},
         .call =
             [=](Values v) {
                 std::uint64_t iova = 0;
                 return outcome_of(moat_map_region(soft->container, soft->device,
                                                   static_cast<std::uint32_t>(v[0]), v[1], v[2],
                                                   static_cast<std::int32_t>(v[3]), "", &iova,
                                                   &soft->error),
                                   soft->error);
             },
         .state = state,
         .good_succeeds = false},
        {.name = "moat_unmap",
         .arguments = {range[0], range[1], direction},
         .call =
             [=](Values v) {
                 const moat_code code = moat_unmap(soft->container, v[0], v[1],
                                                   static_cast<std::int32_t>(v[2]), &soft->error);
                 const Outcome outcome = outcome_of(code, soft->error);
                 if (code == MOAT_OK)
                     soft->map();
                 return outcome;
             },
         .state = state},
    };
}

std::vector<Row> accesses(std::int32_t level) {
    const auto soft = std::make_shared<Container>(level);
    const auto state = [=] { return soft->state(); };
    const std::vector<Argument> sync = {{.name = "iova", .good = soft->iova},
                                        {.name = "offset", .good = 0},
                                        {.name = "bytes", .good = page}};
    return {
        {.name = "moat_sync_for_device",
         .arguments = sync,
         .call =
             [=](Values v) {
                 const moat_code code =
                     moat_sync_for_device(soft->container, v[0], v[1], v[2], &soft->error);
                 return outcome_of(code, soft->error);
             },
         .state = state},
        {.name = "moat_sync_for_cpu",
         .arguments = sync,
         .call =
             [=](Values v) {
                 const moat_code code =
                     moat_sync_for_cpu(soft->container, v[0], v[1], v[2], &soft->error);
                 return outcome_of(code, soft->error);
             },
         .state = state},
        // The memory has as many bytes: the device may access all that the IOMMU permits.
        {.name = "moat_device_read and _write",
         .arguments = {sync[0], {.name = "bytes", .good = 16, .named = false}},
         .call =
             [=](Values v) {
                 const std::size_t bytes = std::min<std::uint64_t>(v[1], 1ULL << 33);
                 std::size_t done = 0;
                 const moat_code read = moat_device_read(soft->device, v[0], large_memory().data(),
                                                         bytes, &done, &soft->error);
                 EXPECT_LE(done, bytes);
                 const Outcome outcome = outcome_of(read, soft->error);
                 const moat_code wrote = moat_device_write(
                     soft->device, v[0], large_memory().data(), bytes, &done, &soft->error);
                 EXPECT_EQ(wrote, read);
                 return outcome;
             },
         .state = state},
        {.name = "moat_device_bar",
         .arguments = {{.name = "index", .good = 0, .bits = 32, .named = false}},
         .call =
             [=](Values v) {
                 void* memory = nullptr;
                 std::size_t bytes = 0;
                 const moat_code code = moat_device_bar(
                     soft->device, static_cast<std::uint32_t>(v[0]), &memory, &bytes, &soft->error);
                 return outcome_of(code, soft->error);
             },
         .state = state,
         .good_succeeds = false},
    };
}

/// Opens a container with one field changed, and uses it: an accepted config must work.
Outcome open_with(const std::function<void(moat_config&)>& change) {
    moat_config config = Container::config_of(MOAT_LEVEL_TRACK);
    change(config);
    moat_error error = MOAT_ERROR_INIT;
    moat_container* container = nullptr;
    const moat_code code = moat_container_open(&config, &container, &error);
    const Outcome outcome = outcome_of(code, error);
    if (code != MOAT_OK)
        return outcome;
    moat_limits limits{};
    limits.size = sizeof limits;
    moat_device* device = nullptr;
    EXPECT_EQ(moat_device_attach(container, "00:03.0", &device, nullptr), MOAT_OK);
    EXPECT_EQ(moat_container_limits(container, &limits, nullptr), MOAT_OK);
    alignas(page) std::array<unsigned char, page> memory{};
    for (int round = 0; round != 3; ++round) {
        std::uint64_t iova = 0;
        if (moat_map(container, memory.data(), 64, MOAT_BIDIRECTIONAL, "a", &iova, nullptr) ==
            MOAT_OK) {
            EXPECT_EQ(moat_unmap(container, iova, 64, MOAT_BIDIRECTIONAL, nullptr), MOAT_OK);
        }
        EXPECT_EQ(moat_flush(container, nullptr), MOAT_OK);
        EXPECT_NE(moat_device_write(device, iova, memory.data(), 1, nullptr, nullptr), MOAT_OK);
    }
    EXPECT_EQ(moat_container_close(container, nullptr), MOAT_OK);
    return outcome;
}

std::vector<Row> configs() {
    std::vector<Row> rows;
    const auto field = [&](auto member, const char* name, bool named = true) {
        const moat_config usual = Container::config_of(MOAT_LEVEL_TRACK);
        using Field = std::remove_cvref_t<decltype(usual.*member)>;
        const unsigned bits = 8 * sizeof(Field);
        rows.push_back(
            {.name = std::string("moat_config.") + name,
             .arguments = {{.name = name,
                            .good = static_cast<std::uint64_t>(usual.*member),
                            .bits = bits,
                            .named = named,
                            .more = {1, 2, 3}},
                           {.name = "level", .good = MOAT_LEVEL_TRACK, .bits = 2, .named = false}},
             .call = [=](Values v) {
                 return open_with([&](moat_config& config) {
                     config.level = static_cast<std::int32_t>(v[1]);
                     config.*member = static_cast<Field>(v[0]);
                 });
             }});
    };
    field(&moat_config::backend, "backend", false); // VFIO passes on the system's errors
    field(&moat_config::flags, "flags");
    field(&moat_config::level, "level");
    field(&moat_config::placement, "placement");
    field(&moat_config::unmapping, "unmapping");
    field(&moat_config::guard_bytes, "guard_bytes", false); // the errors name pages
    field(&moat_config::guard_before_bytes, "guard_before_bytes", false);
    field(&moat_config::quarantine_bytes, "quarantine_bytes");
    field(&moat_config::dma_mask, "dma_mask");
    field(&moat_config::history, "history");
    field(&moat_config::stacks, "stacks");
    field(&moat_config::tables, "tables");
    field(&moat_config::reserved, "reserved");
    return rows;
}

/// Sizes of structs; the memory behind each has that size.
std::vector<Row> sizes() {
    const auto soft = std::make_shared<Container>(MOAT_LEVEL_TRACK);
    const auto room = [](std::uint64_t size) { return std::min<std::uint64_t>(size, 1 << 20); };
    return {
        {.name = "moat_config_init",
         .arguments = {{.name = "size", .good = sizeof(moat_config), .named = false}},
         .call = [=](Values v) -> Outcome {
             const std::size_t size = v[0] <= ~std::uint32_t{0} ? room(v[0]) : v[0];
             const moat_code code =
                 moat_config_init(reinterpret_cast<moat_config*>(large_memory().data()), size);
             EXPECT_TRUE(code == MOAT_OK || code == MOAT_INVALID);
             return returned;
         }},
        {.name = "moat_config.size",
         .arguments = {{.name = "size", .good = sizeof(moat_config), .bits = 32}},
         .call =
             [=](Values v) {
                 const auto bytes =
                     std::make_unique<unsigned char[]>(room(v[0]) + sizeof(moat_config));
                 const moat_config config = Container::config_of(MOAT_LEVEL_GUARD);
                 std::memcpy(bytes.get(), &config, sizeof config);
                 const auto size = static_cast<std::uint32_t>(room(v[0]));
                 std::memcpy(bytes.get(), &size, sizeof size);
                 moat_error error = MOAT_ERROR_INIT;
                 moat_container* container = nullptr;
                 const moat_code code = moat_container_open(
                     reinterpret_cast<const moat_config*>(bytes.get()), &container, &error);
                 const Outcome outcome = outcome_of(code, error);
                 EXPECT_EQ(moat_container_close(container, nullptr), MOAT_OK);
                 return outcome;
             }},
        {.name = "moat_limits.size",
         .arguments = {{.name = "size", .good = sizeof(moat_limits), .bits = 32}},
         .call =
             [=](Values v) {
                 auto* const limits = reinterpret_cast<moat_limits*>(large_memory().data());
                 limits->size = static_cast<std::uint32_t>(room(v[0]));
                 const moat_code code =
                     moat_container_limits(soft->container, limits, &soft->error);
                 return outcome_of(code, soft->error);
             }},
        {.name = "moat_error.size",
         .arguments = {{.name = "size", .good = sizeof(moat_error), .bits = 32}},
         .call = [=](Values v) -> Outcome {
             auto* const error = reinterpret_cast<moat_error*>(large_memory().data());
             error->size = static_cast<std::uint32_t>(room(v[0]));
             const moat_code code = moat_unmap(soft->container, 7, 7, 7, error);
             EXPECT_EQ(code, MOAT_INVALID);
             return returned;
         }},
        {.name = "names",
         .arguments = {{.name = "number", .good = 0, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             const auto number = static_cast<std::int32_t>(v[0]);
             EXPECT_NE(moat_code_name(number), nullptr);
             EXPECT_NE(moat_fault_kind_name(number), nullptr);
             return returned;
         }},
    };
}

TEST(CApiContracts, calls_take_any_number_at_level_track) {
    expect_contracts([] { return mappings(MOAT_LEVEL_TRACK); });
    expect_contracts([] { return accesses(MOAT_LEVEL_TRACK); });
}

TEST(CApiContracts, calls_take_any_number_at_level_exact) {
    expect_contracts([] { return mappings(MOAT_LEVEL_EXACT); });
    expect_contracts([] { return accesses(MOAT_LEVEL_EXACT); });
}

TEST(CApiContracts, calls_take_any_number_at_level_guard) {
    expect_contracts([] { return mappings(MOAT_LEVEL_GUARD); });
    expect_contracts([] { return accesses(MOAT_LEVEL_GUARD); });
}

TEST(CApiContracts, configs_take_any_number) {
    expect_contracts(configs);
}

TEST(CApiContracts, structs_take_any_size) {
    expect_contracts(sizes);
}

} // namespace
} // namespace moat::tests
