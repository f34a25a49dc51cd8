// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The library for C over Linux VFIO: a container with QEMU's edu, whose registers the test drives
// itself, like a driver in C.
#include "moat/moat.h"

#include "guest.hpp"

#include <array>
#include <chrono>

namespace moat::tests {
namespace {

/// Source: QEMU's docs/specs/edu.rst.
class EduByHand {
  public:
    explicit EduByHand(void* bar) : bar_(static_cast<volatile unsigned char*>(bar)) {}

    /// The device writes `bytes` of its buffer to `to`.
    void write_memory(std::uint64_t to, std::uint64_t bytes) const {
        put(0x80, 0x40000);
        put(0x88, to);
        put(0x90, bytes);
        put(0x98, 1 | 2);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
        while ((get(0x98) & 1) != 0 && std::chrono::steady_clock::now() < end)
            ;
        EXPECT_EQ(get(0x98) & 1, 0U) << "it is still at it";
    }

  private:
    void put(unsigned at, std::uint64_t value) const {
        *reinterpret_cast<volatile std::uint64_t*>(bar_ + at) = value;
    }

    [[nodiscard]] std::uint64_t get(unsigned at) const {
        return *reinterpret_cast<const volatile std::uint64_t*>(bar_ + at);
    }

    volatile unsigned char* bar_;
};

struct Heard {
    std::uint64_t faults = 0;
    std::int32_t kind = -1;
    std::string label;
    const moat_device* device = nullptr;
};

constexpr std::size_t page_bytes = 4096;

class CApiOverVfio : public ::testing::Test {
  protected:
    void SetUp() override {
        for (const machine::Bdf each : {edu, memory_bar}) {
            const auto bound = machine::vfio_host::bind_to_vfio(each);
            ASSERT_TRUE(bound) << bound.error();
        }
        ASSERT_EQ(moat_config_init(&config, sizeof config), MOAT_OK);
        config.backend = MOAT_BACKEND_VFIO;
        config.dma_mask = (1U << 28) - 1; // edu's
        config.on_fault = [](void* context, const moat_fault* fault) {
            auto& to = *static_cast<Heard*>(context);
            ++to.faults;
            to.kind = fault->kind;
            to.device = fault->device;
            if (fault->mapping != nullptr)
                to.label = fault->mapping->label;
        };
        config.context = &heard;
        ASSERT_EQ(moat_container_open(&config, &container, &error), MOAT_OK) << error.text;
    }

    void TearDown() override {
        EXPECT_EQ(moat_container_close(container, &error), MOAT_OK) << error.text;
    }

    moat_error error = MOAT_ERROR_INIT;
    moat_config config{};
    moat_container* container = nullptr;
    moat_device* device = nullptr;
    Heard heard;
    alignas(page_bytes) inline static std::array<unsigned char, 2 * page_bytes> memory;
};

TEST_F(CApiOverVfio, a_device_reaches_its_buffer_and_its_stray_is_told) {
    moat_limits limits = {};
    limits.size = sizeof limits;
    std::uint64_t ring = 0;
    std::uint64_t other = 0;
    EXPECT_EQ(moat_container_limits(container, &limits, &error), MOAT_REFUSED) << "not known yet";
    EXPECT_EQ(moat_map(container, memory.data(), page_bytes, MOAT_FROM_DEVICE, "", &ring, &error),
              MOAT_REFUSED);
    ASSERT_EQ(moat_device_attach(container, "00:04.0", &device, &error), MOAT_OK) << error.text;
    ASSERT_EQ(moat_container_limits(container, &limits, &error), MOAT_OK) << error.text;
    EXPECT_EQ(limits.backend,
              expected_backend() == Backend::type1 ? MOAT_BACKEND_TYPE1 : MOAT_BACKEND_IOMMUFD);
    unsigned char byte = 0;
    EXPECT_EQ(moat_device_read(device, 0, &byte, 1, nullptr, &error), MOAT_UNSUPPORTED);

    memory.fill(0xc5);
    ASSERT_EQ(
        moat_map(container, memory.data(), page_bytes, MOAT_FROM_DEVICE, "ring", &ring, &error),
        MOAT_OK)
        << error.text;
    ASSERT_EQ(moat_map(container, memory.data() + page_bytes, page_bytes, MOAT_FROM_DEVICE, "other",
                       &other, &error),
              MOAT_OK)
        << error.text;
    EXPECT_EQ(moat_device_detach(device, &error), MOAT_BUSY) << "something is mapped";
    void* bar = nullptr;
    std::size_t bar_bytes = 0;
    ASSERT_EQ(moat_device_bar(device, 0, &bar, &bar_bytes, &error), MOAT_OK) << error.text;
    EXPECT_EQ(bar_bytes, std::size_t{1} << 20);
    EduByHand(bar).write_memory(ring + 2048, 2048 + 64);
    EXPECT_EQ(std::ranges::count(memory, 0xc5), 2048 + 4096) << "the half page, and no neighbour";

    // The kernel limits the rate of these lines and may drop it: then it counts as lost.
    std::uint64_t all = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (all == 0 && std::chrono::steady_clock::now() < end) {
        std::uint64_t told = 0;
        std::uint64_t lost = 0;
        ASSERT_EQ(moat_poll_faults(container, &told, &lost, &error), MOAT_OK) << error.text;
        EXPECT_EQ(heard.faults, told);
        all = told + lost;
    }
    EXPECT_NE(all, 0U) << "the fault came home";
    if (heard.faults != 0) {
        EXPECT_EQ(heard.kind, MOAT_FAULT_OVERFLOW);
        EXPECT_EQ(heard.label, "ring");
        EXPECT_EQ(heard.device, device);
    }
    void* coherent = nullptr;
    std::uint64_t coherent_iova = 0;
    ASSERT_EQ(moat_allocate_coherent(container, page_bytes, "coherent", &coherent, &coherent_iova,
                                     &error),
              MOAT_OK)
        << error.text;
    auto* const ring_bytes = static_cast<unsigned char*>(coherent);
    std::fill_n(ring_bytes, page_bytes, 0xc5);
    EduByHand(bar).write_memory(coherent_iova, 100);
    EXPECT_EQ(std::count(ring_bytes, ring_bytes + page_bytes, 0xc5), page_bytes - 100);
    EXPECT_EQ(moat_free_coherent(container, coherent_iova, &error), MOAT_OK) << error.text;
    EXPECT_EQ(moat_unmap(container, other, page_bytes, MOAT_FROM_DEVICE, &error), MOAT_OK);
    EXPECT_EQ(moat_unmap(container, ring, page_bytes, MOAT_FROM_DEVICE, &error), MOAT_OK);
    EXPECT_EQ(moat_unmap(container, ring, page_bytes, MOAT_FROM_DEVICE, &error), MOAT_NOT_FOUND);
    EXPECT_EQ(moat_device_detach(device, &error), MOAT_OK) << error.text;
}

TEST_F(CApiOverVfio, a_region_of_another_device_is_reached) {
    moat_device* peer = nullptr;
    ASSERT_EQ(moat_device_attach(container, "00:07.0", &peer, &error), MOAT_OK) << error.text;
    ASSERT_EQ(moat_device_attach(container, "00:04.0", &device, &error), MOAT_OK) << error.text;
    void* bar = nullptr;
    void* region = nullptr;
    std::size_t bytes = 0;
    ASSERT_EQ(moat_device_bar(peer, 2, &region, &bytes, &error), MOAT_OK) << error.text;
    ASSERT_EQ(moat_device_bar(device, 0, &bar, &bytes, &error), MOAT_OK) << error.text;
    auto* const there = static_cast<unsigned char*>(region);
    std::fill_n(there, 2 * page_bytes, 0xc5);
    std::uint64_t iova = 0;
    const moat_code mapped = moat_map_region(container, peer, 2, 0, page_bytes, MOAT_FROM_DEVICE,
                                             "the BAR", &iova, &error);
    if (expected_backend() == Backend::iommufd) {
        EXPECT_EQ(mapped, MOAT_UNSUPPORTED) << error.text;
        return;
    }
    ASSERT_EQ(mapped, MOAT_OK) << error.text;
    EduByHand(bar).write_memory(iova + page_bytes - 64, 65);
    EXPECT_EQ(std::count(there, there + 2 * page_bytes, 0xc5), 2 * page_bytes - 64)
        << "one byte beyond is blocked";
    EXPECT_EQ(moat_unmap(container, iova, page_bytes, MOAT_FROM_DEVICE, &error), MOAT_OK);
    EXPECT_EQ(moat_poll_faults(container, nullptr, nullptr, &error), MOAT_OK) << error.text;
}

} // namespace
} // namespace moat::tests
