// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Misuse of moat.h returns an error and a line that explains it: null pointers, undefined numbers,
// and structs of another version's size.
#include "fixture.hpp"
#include "layout.h"

#include <cstring>

namespace moat::tests {
namespace {

TEST_F(CApi, nulls_are_invalid_wherever_something_is_needed) {
    open();
    unsigned char byte = 0;
    std::uint64_t iova = 0;
    void* bar = nullptr;
    std::size_t bytes = 0;
    moat_limits limits = {};
    moat_container* other = nullptr;
    moat_device* another = nullptr;
    const std::array<moat_code, 24> codes = {
        moat_config_init(nullptr, sizeof config),
        moat_container_open(nullptr, &other, &error),
        moat_container_open(&config, nullptr, &error),
        moat_container_limits(nullptr, &limits, &error),
        moat_container_limits(container, nullptr, &error),
        moat_device_attach(nullptr, "00:01.0", &another, &error),
        moat_device_attach(container, nullptr, &another, &error),
        moat_device_attach(container, "00:01.0", nullptr, &error),
        moat_device_detach(nullptr, &error),
        moat_device_read(nullptr, 0, &byte, 1, nullptr, &error),
        moat_device_read(device, 0, nullptr, 1, nullptr, &error),
        moat_device_write(nullptr, 0, &byte, 1, nullptr, &error),
        moat_device_write(device, 0, nullptr, 1, nullptr, &error),
        moat_device_bar(nullptr, 0, &bar, &bytes, &error),
        moat_device_bar(device, 0, nullptr, &bytes, &error),
        moat_map(nullptr, &byte, 1, 0, "", &iova, &error),
        moat_map(container, nullptr, 1, 0, "", &iova, &error),
        moat_map(container, &byte, 1, 0, "", nullptr, &error),
        moat_unmap(nullptr, 0, 1, 0, &error),
        moat_sync_for_cpu(nullptr, 0, 0, 1, &error),
        moat_sync_for_device(nullptr, 0, 0, 1, &error),
        moat_flush(nullptr, &error),
        moat_poll_faults(nullptr, nullptr, nullptr, &error),
        moat_report_text(nullptr, nullptr, 0, nullptr, &error)};
    for (std::size_t i = 0; i != codes.size(); ++i)
        EXPECT_EQ(codes[i], MOAT_INVALID) << "call " << i;
    EXPECT_EQ(error.code, MOAT_INVALID);
    EXPECT_STRNE(error.text, "");
    EXPECT_EQ(moat_container_close(nullptr, nullptr), MOAT_OK) << "as free(NULL)";
}

TEST_F(CApi, nulls_may_be_given_where_nothing_is_wanted) {
    open();
    std::uint64_t iova = 0;
    EXPECT_EQ(moat_map(container, memory.data(), 1, MOAT_TO_DEVICE, nullptr, &iova, nullptr),
              MOAT_OK);
    EXPECT_EQ(moat_unmap(container, iova, 1, MOAT_TO_DEVICE, nullptr), MOAT_OK);
    EXPECT_EQ(moat_poll_faults(container, nullptr, nullptr, nullptr), MOAT_OK);
    EXPECT_EQ(write(0x1000, 1), MOAT_REFUSED) << "no `done`";
}

TEST_F(CApi, numbers_that_there_are_not_are_invalid) {
    const auto refused = [&](auto change) {
        moat_config wrong = config;
        change(wrong);
        EXPECT_EQ(moat_container_open(&wrong, &container, &error), MOAT_INVALID);
        EXPECT_EQ(container, nullptr);
        return std::string(error.text);
    };
    EXPECT_NE(refused([](moat_config& to) { to.backend = 4; }).find("backend"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.backend = -1; }).find("backend"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.flags = 2; }).find("flags"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.level = 3; }).find("level"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.level = -1; }).find("level"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.placement = 2; }).find("placement"),
              std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.unmapping = 2; }).find("unmapping"),
              std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.history = 0; }).find("history"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.tables = 0; }).find("tables"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.tables = ~0U; }).find("tables"), std::string::npos);
    EXPECT_NE(refused([](moat_config& to) { to.options = "guard"; }).find("has no value"),
              std::string::npos);
    open();
    std::uint64_t iova = 0;
    for (const std::int32_t direction : {-1, 3}) {
        EXPECT_EQ(moat_map(container, memory.data(), 1, direction, "", &iova, &error),
                  MOAT_INVALID);
        EXPECT_EQ(moat_unmap(container, 0x1000, 1, direction, &error), MOAT_INVALID);
    }
    for (const char* address : {"", "x", "00:03", "0000:00:20.0", "00:03.8", "00:03.0 "}) {
        moat_device* another = nullptr;
        EXPECT_EQ(moat_device_attach(container, address, &another, &error), MOAT_INVALID)
            << address;
    }
}

TEST_F(CApi, ranges_that_do_not_fit_are_errors) {
    open();
    std::uint64_t iova = 0;
    std::size_t done = 1;
    EXPECT_EQ(moat_map(container, memory.data(), 0, 0, "", &iova, &error), MOAT_EMPTY);
    EXPECT_EQ(moat_map(container, memory.data(), SIZE_MAX, 0, "", &iova, &error), MOAT_OVERFLOW);
    const std::size_t to_the_top = SIZE_MAX - reinterpret_cast<std::uintptr_t>(memory.data());
    EXPECT_NE(moat_map(container, memory.data(), to_the_top, 0, "", &iova, &error), MOAT_OK);
    EXPECT_NE(moat_map(container, memory.data(), to_the_top + 1, 0, "", &iova, &error), MOAT_OK);
    EXPECT_EQ(moat_unmap(container, 0x1000, 0, 0, &error), MOAT_EMPTY);
    EXPECT_EQ(moat_unmap(container, ~std::uint64_t{0}, 2, 0, &error), MOAT_OVERFLOW);
    EXPECT_EQ(moat_unmap(container, ~std::uint64_t{0}, 1, 0, &error), MOAT_NOT_FOUND);
    for (const auto sync : {moat_sync_for_cpu, moat_sync_for_device}) {
        EXPECT_EQ(sync(container, 0x1000, 0, 0, &error), MOAT_EMPTY);
        EXPECT_EQ(sync(container, 0x1000, ~std::uint64_t{0}, 1, &error), MOAT_OVERFLOW);
        EXPECT_EQ(sync(container, 0x1000, 0, SIZE_MAX, &error), MOAT_OVERFLOW);
        EXPECT_EQ(sync(container, ~std::uint64_t{0}, 0, 1, &error), MOAT_NOT_FOUND);
    }
    unsigned char byte = 0;
    EXPECT_EQ(moat_device_read(device, 0x1000, &byte, 0, &done, &error), MOAT_EMPTY);
    EXPECT_EQ(done, 0U);
    EXPECT_EQ(write(~std::uint64_t{0}, 2, &done), MOAT_REFUSED) << "past the last address";
}

TEST_F(CApi, what_a_backend_cannot_is_unsupported) {
    open();
    void* bar = nullptr;
    std::size_t bytes = 0;
    EXPECT_EQ(moat_device_bar(device, 0, &bar, &bytes, &error), MOAT_UNSUPPORTED);
    EXPECT_EQ(bar, nullptr);
}

TEST_F(CApi, a_mask_that_leaves_nothing_is_out_of_range_and_one_that_is_small_is_kept) {
    config.dma_mask = 0xffffff;
    open();
    EXPECT_LE(map(memory.data(), 4096, MOAT_BIDIRECTIONAL, "low"), 0xffffffU);
    close();
    EXPECT_EQ(errors.size(), 1U);
    config.guard_bytes = std::uint64_t{1} << 40;
    EXPECT_EQ(moat_container_open(&config, &container, &error), MOAT_OUT_OF_RANGE);
}

TEST_F(CApi, tables_that_run_out_are_no_memory) {
    config.tables = 2;
    open();
    std::uint64_t iova = 0;
    EXPECT_EQ(moat_map(container, memory.data(), 4096, 0, "", &iova, &error), MOAT_NO_MEMORY);
    EXPECT_EQ(iova, 0U);
}

/// With or without VFIO on this machine: a container, or a reason.
TEST_F(CApi, vfio_is_opened_or_says_why_not) {
    for (const std::int32_t backend :
         {MOAT_BACKEND_VFIO, MOAT_BACKEND_TYPE1, MOAT_BACKEND_IOMMUFD}) {
        config.backend = backend;
        const moat_code code = moat_container_open(&config, &container, &error);
        if (code != MOAT_OK) {
            EXPECT_TRUE(code == MOAT_NOT_FOUND || code == MOAT_REFUSED || code == MOAT_UNSUPPORTED)
                << error.text;
            EXPECT_GT(std::strlen(error.text), 20U);
            continue;
        }
        std::uint64_t iova = 0;
        EXPECT_EQ(moat_map(container, memory.data(), 4096, 0, "", &iova, &error), MOAT_REFUSED)
            << "before a device is attached";
        EXPECT_EQ(moat_device_attach(container, "ffff:ff:1f.7", &device, &error), MOAT_NOT_FOUND);
        close();
    }
}

/// A struct of another version, of exactly that many bytes, so that AddressSanitizer detects
/// accesses past it.
template <class Struct>
class OfSize {
  public:
    explicit OfSize(std::size_t bytes, unsigned char fill = 0) : bytes_(bytes, fill) {
        put(static_cast<std::uint32_t>(bytes));
    }

    void put(std::uint32_t size) { std::memcpy(bytes_.data(), &size, sizeof size); }

    [[nodiscard]] Struct* get() { return reinterpret_cast<Struct*>(bytes_.data()); }

    [[nodiscard]] std::size_t size() const {
        std::uint32_t size = 0;
        std::memcpy(&size, bytes_.data(), sizeof size);
        return size;
    }

    [[nodiscard]] unsigned char& last() { return bytes_.back(); }

    [[nodiscard]] const char* from(std::size_t offset) const {
        return reinterpret_cast<const char*>(bytes_.data()) + offset;
    }

  private:
    std::vector<unsigned char> bytes_;
};

constexpr std::size_t text_of_error = offsetof(moat_error, text);

TEST_F(CApi, errors_are_written_as_far_as_their_size_says) {
    for (const std::uint32_t size : {0U, 4U, 8U}) {
        OfSize<moat_error> none(8, 0x77);
        none.put(size);
        EXPECT_EQ(moat_flush(nullptr, none.get()), MOAT_INVALID);
        EXPECT_EQ(moat_container_close(nullptr, none.get()), MOAT_INVALID)
            << "no room for a text, so it is not found only when something fails";
        EXPECT_EQ(none.last(), 0x77) << "not written";
    }
    OfSize<moat_error> few(12);
    EXPECT_EQ(moat_flush(nullptr, few.get()), MOAT_INVALID);
    EXPECT_STREQ(few.from(text_of_error), "the");
    OfSize<moat_error> later(1000);
    std::string long_option(300, 'a');
    long_option[150] = '=';
    config.options = long_option.c_str();
    EXPECT_EQ(moat_container_open(&config, &container, later.get()), MOAT_INVALID);
    EXPECT_GT(std::strlen(later.from(text_of_error)), sizeof error.text);
    EXPECT_EQ(moat_container_open(&config, &container, &error), MOAT_INVALID);
    EXPECT_EQ(std::strlen(error.text), sizeof error.text - 1);
}

TEST_F(CApi, a_config_of_another_version_is_taken_by_its_size) {
    OfSize<moat_config> small(sizeof(moat_config) - 1);
    EXPECT_EQ(moat_container_open(small.get(), &container, &error), MOAT_INVALID)
        << "of no version";
    EXPECT_EQ(moat_config_init(small.get(), sizeof(moat_config) - 1), MOAT_INVALID);

    const std::size_t bytes = sizeof(moat_config) + 16;
    OfSize<moat_config> later(bytes, 0xff);
    ASSERT_EQ(moat_config_init(later.get(), bytes), MOAT_OK);
    EXPECT_EQ(later.size(), bytes);
    EXPECT_EQ(moat_container_open(later.get(), &container, &error), MOAT_OK)
        << "fields that are zero: " << error.text;
    close();
    later.last() = 1;
    EXPECT_EQ(moat_container_open(later.get(), &container, &error), MOAT_UNSUPPORTED);
}

TEST_F(CApi, limits_are_given_as_far_as_their_size_says) {
    open();
    OfSize<moat_limits> later(sizeof(moat_limits) + 8, 0xff);
    later.put(sizeof(moat_limits) + 8);
    EXPECT_EQ(moat_container_limits(container, later.get(), &error), MOAT_OK) << error.text;
    EXPECT_EQ(later.size(), sizeof(moat_limits) + 8);
    EXPECT_EQ(later.last(), 0);
    OfSize<moat_limits> small(sizeof(moat_limits) - 8);
    EXPECT_EQ(moat_container_limits(container, small.get(), &error), MOAT_INVALID);
}

TEST(Names, are_constants_and_never_null) {
    EXPECT_EQ(moat_abi_version(), static_cast<std::uint32_t>(MOAT_ABI_VERSION));
    EXPECT_STREQ(moat_version(), MOAT_VERSION);
    EXPECT_STREQ(moat_code_name(MOAT_OK), "ok");
    EXPECT_STREQ(moat_code_name(MOAT_NOT_FOUND), "not found");
    EXPECT_STREQ(moat_code_name(MOAT_IO), "input / output");
    EXPECT_STREQ(moat_code_name(MOAT_INVALID), "invalid argument");
    EXPECT_STREQ(moat_code_name(MOAT_INTERNAL), "internal error");
    EXPECT_STREQ(moat_code_name(-1), "no such code");
    EXPECT_STREQ(moat_code_name(MOAT_INTERNAL + 1), "no such code");
    EXPECT_STREQ(moat_fault_kind_name(-1), "no such kind");
    EXPECT_STREQ(moat_fault_kind_name(MOAT_FAULT_OVERFLOW), "dma-buffer-overflow");
    EXPECT_NE(std::strstr(moat_options_help(), "level=guard|track|exact"), nullptr);
}

/// The same sizes in C, in C++, and in programs built with version 1 (on 64-bit machines).
TEST(Layout, is_that_of_version_1) {
    EXPECT_EQ(layout_in_c(),
              (layout{sizeof(moat_error), sizeof(moat_mapping), sizeof(moat_fault),
                      sizeof(moat_driver_error), sizeof(moat_config), sizeof(moat_limits),
                      offsetof(moat_fault, report), offsetof(moat_config, context)}));
    EXPECT_EQ(layout_in_c(), (layout{256, 56, 144, 56, 104, 56, 136, 96}));
}

} // namespace
} // namespace moat::tests
