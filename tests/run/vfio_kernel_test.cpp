// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Type1 of the state machine: each request with right, short, long and wrong arguments, and what
// closing files in any order does. tests/vm compares the same requests with Linux.
#include "vfio_caller.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

/// The structure of an INFO request with room behind it.
template <class T>
struct Roomy {
    T head = {};
    std::array<std::byte, 256> room = {};
};

TEST(Container, answers_version_and_extensions_before_it_has_an_iommu) {
    VfioCaller caller;
    const int container = caller.open(caller.kernel.open_container());
    EXPECT_EQ(caller.call(container, VFIO_GET_API_VERSION, 0), VFIO_API_VERSION);
    for (const unsigned known : {VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL})
        EXPECT_EQ(caller.call(container, VFIO_CHECK_EXTENSION, known), 1) << known;
    for (const unsigned other : {0, VFIO_SPAPR_TCE_IOMMU, VFIO_NOIOMMU_IOMMU, 77})
        EXPECT_EQ(caller.call(container, VFIO_CHECK_EXTENSION, other), 0) << other;
    vfio_iommu_type1_info info{
        .argsz = sizeof info, .flags = 0, .iova_pgsizes = 0, .cap_offset = 0};
    EXPECT_EQ(caller.call(container, VFIO_IOMMU_GET_INFO, info), -EINVAL);
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -EINVAL);
    EXPECT_EQ(caller.call(container, 0x3bff, 0), -EINVAL);
}

TEST(Container, takes_an_iommu_once_it_has_a_group) {
    VfioCaller caller;
    const int container = caller.open(caller.kernel.open_container());
    const int group = caller.open(caller.kernel.open_group(7));
    EXPECT_EQ(caller.set_container(group, container), 0);
    EXPECT_TRUE(caller.program.attached.empty());
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_SPAPR_TCE_IOMMU), -ENODEV);
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_UNMAP_ALL), -EINVAL);
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), 0);
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -EINVAL);
    EXPECT_EQ(caller.call(container, 0x3bff, 0), -ENOTTY);
    ASSERT_EQ(caller.program.attached.size(), 2U);
    EXPECT_NE(caller.program.attached[0], run::Space::none);
    EXPECT_EQ(caller.program.attached[0], caller.program.attached[1]);
}

TEST(Group, has_one_file_and_one_container) {
    VfioCaller caller;
    EXPECT_EQ(caller.open(caller.kernel.open_group(8)), -ENOENT);
    caller.make_container();
    EXPECT_EQ(caller.open(caller.kernel.open_group(7)), -EBUSY);
    EXPECT_EQ(caller.set_container(caller.group, caller.container), -EINVAL);
    const int other = caller.open(caller.kernel.open_group(9));
    vfio_group_status status{.argsz = sizeof status, .flags = 0};
    EXPECT_EQ(caller.call(other, VFIO_GROUP_GET_STATUS, status), 0);
    EXPECT_EQ(status.flags, static_cast<unsigned>(VFIO_GROUP_FLAGS_VIABLE));
    status.argsz = 7;
    EXPECT_EQ(caller.call(other, VFIO_GROUP_GET_STATUS, status), -EINVAL);
    EXPECT_EQ(caller.set_container(other, -1), -EBADF);
    EXPECT_EQ(caller.set_container(other, other), -EBADFD);
    EXPECT_EQ(caller.call(other, VFIO_GROUP_UNSET_CONTAINER, 0), -EINVAL);
    EXPECT_EQ(caller.set_container(other, caller.container), 0);
    EXPECT_EQ(caller.program.attached[2], caller.program.attached[0]);
    status.argsz = sizeof status;
    EXPECT_EQ(caller.call(other, VFIO_GROUP_GET_STATUS, status), 0);
    EXPECT_EQ(status.flags,
              static_cast<unsigned>(VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET));
    EXPECT_EQ(caller.call(other, VFIO_GROUP_UNSET_CONTAINER, 0), 0);
    EXPECT_EQ(caller.program.attached[2], run::Space::none);
    EXPECT_EQ(caller.call(other, 0x3bff, 0), -ENOTTY);
}

TEST(Group, opens_its_devices_by_name) {
    VfioCaller caller;
    const int container = caller.open(caller.kernel.open_container());
    const int group = caller.open(caller.kernel.open_group(7));
    EXPECT_EQ(caller.device_file(group, "0000:05:00.0"), -EINVAL) << "no container";
    EXPECT_EQ(caller.set_container(group, container), 0);
    EXPECT_EQ(caller.device_file(group, "0000:05:00.0"), -EINVAL) << "no IOMMU";
    EXPECT_EQ(caller.call(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), 0);
    for (const char* wrong : {"0000:00:04.0", "0000:05:00.2", "05:00.0", "0000:05:00.00", ""})
        EXPECT_EQ(caller.device_file(group, wrong), -ENODEV) << wrong;
    EXPECT_EQ(caller.device_file(group, "0000:05:00.0 vf_token=x"), -EINVAL);
    const std::int64_t device = caller.device_file(group, "0000:05:00.1");
    ASSERT_GT(device, 0);
    EXPECT_EQ(caller.kernel.device_of(caller.program.file_of(static_cast<int>(device))), 1U);
    EXPECT_EQ(caller.kernel.device_of(caller.program.file_of(group)), std::nullopt);
    EXPECT_GT(caller.device_file(group, "0000:05:00.1"), 0) << "may be opened again";
    EXPECT_EQ(caller.call(group, VFIO_GROUP_UNSET_CONTAINER, 0), -EBUSY);
}

TEST(Type1, maps_what_is_right_and_nothing_else) {
    VfioCaller caller({.aperture = {IovaRange(Iova(0), ByteCount(0x10'0000)),
                                    IovaRange(Iova(0x20'0000), ByteCount(0x10'0000))}});
    caller.make_container();

    struct Row {
        std::int64_t answer;
        std::uint64_t iova, size, memory;
        std::uint32_t flags = 3, argsz = 32;
    };

    constexpr std::uint64_t memory = VfioCaller::memory;
    for (const Row& row : {
             Row{0, 0x1000, page, memory},
             Row{0, 0x2000, page, memory, 1},
             Row{0, 0x4000, page, memory, 2, 4000},
             Row{-EEXIST, 0x1000, page, memory},
             Row{-EEXIST, 0, 0x10'0000, memory},
             Row{-EEXIST, 0, 0x80'0000, memory}, // before the aperture
             Row{-EINVAL, 0x8000, page, memory, 3, 31},
             Row{-EINVAL, 0x8000, page, memory, 0},
             Row{-EINVAL, 0x8000, page, memory, 4},
             Row{-EINVAL, 0x8000, page, memory, 3U | 0x80U},
             Row{-EINVAL, 0x8000, 0, memory},
             Row{-EINVAL, 0x8001, page, memory},
             Row{-EINVAL, 0x8000, page + 1, memory},
             Row{-EINVAL, 0x8000, page, memory + 8},
             Row{-EINVAL, -page, 2 * page, memory},
             Row{-EINVAL, 0x8000, 2 * page, -page},
             Row{-EINVAL, 0x20'0000 - page, page, memory},
             Row{-EINVAL, 0x10'0000 - page, 0x10'0000 + 2 * page, memory},
             Row{-EFAULT, 0x8000, page, page},
             Row{0, 0x10'0000 - page, page, memory},
             Row{0, 0x20'0000, 0x10'0000, memory},
         })
        EXPECT_EQ(
            caller.map(caller.container, row.iova, row.size, row.memory, row.flags, row.argsz),
            row.answer)
            << std::hex << row.iova << " " << row.size;
    const auto& maps = caller.program.spaces[caller.program.attached[0]];
    ASSERT_EQ(maps.size(), 5U);
    EXPECT_EQ(maps.at(0x1000).allows, fault::Allows::read_write);
    EXPECT_EQ(maps.at(0x2000).allows, fault::Allows::read);
    EXPECT_EQ(maps.at(0x4000).allows, fault::Allows::write);
}

TEST(Type1, version_2_unmaps_whole_mappings) {
    VfioCaller caller;
    caller.make_container();
    for (const std::uint64_t at : {0x1000, 0x4000, 0x8000})
        ASSERT_EQ(caller.map(caller.container, at, 2 * page), 0);

    struct Row {
        std::int64_t answer;
        std::uint64_t iova, size;
        std::uint32_t flags = 0, argsz = 24;
    };

    for (const Row& row : {
             Row{-EINVAL, 0x1000, page},     // would cut
             Row{-EINVAL, 0x2000, page},     //
             Row{-EINVAL, 0x2000, 4 * page}, //
             Row{-EINVAL, 0x1000, 0},
             Row{-EINVAL, 0x1001, page},
             Row{-EINVAL, 0x1000, page - 1},
             Row{-EINVAL, -page, 2 * page},
             Row{-EINVAL, 0x1000, 2 * page, 0x80},
             Row{-EINVAL, 0x1000, 2 * page, VFIO_DMA_UNMAP_FLAG_ALL},
             Row{-EINVAL, 0x1000, 2 * page, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP},
             Row{-EINVAL, 0x1000, 2 * page, 0, 23},
             Row{0, 0, page},
             Row{0, 0x100'0000, page},
             Row{4 * page, 0, 0x7000},
             Row{0, 0, 0x7000},
             Row{2 * page, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL},
             Row{0, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL},
         })
        EXPECT_EQ(caller.unmap(caller.container, row.iova, row.size, row.flags, row.argsz),
                  row.answer)
            << std::hex << row.iova << " " << row.size;
    EXPECT_EQ(caller.program.mapped(), 0U);
}

TEST(Type1, version_1_unmaps_a_mapping_whose_start_is_named) {
    VfioCaller caller;
    caller.make_container(VFIO_TYPE1_IOMMU);
    ASSERT_EQ(caller.map(caller.container, 0x1000, 2 * page), 0);
    EXPECT_EQ(caller.unmap(caller.container, 0x2000, page), 0);
    EXPECT_EQ(caller.program.mapped(), 1U);
    EXPECT_EQ(caller.unmap(caller.container, 0x1000, page), 2 * page);
    EXPECT_EQ(caller.program.mapped(), 0U);
}

TEST(Type1, reports_pages_aperture_and_mappings_left) {
    VfioCaller caller({.entries = 3,
                       .aperture = {IovaRange(Iova(0), ByteCount(0x10'0000)),
                                    IovaRange(Iova(0x20'0000), ByteCount(0x10'0000))},
                       .page_sizes = 0x201000});
    caller.make_container();
    ASSERT_EQ(caller.map(caller.container, 0x1000, page), 0);
    Roomy<vfio_iommu_type1_info> info;
    info.head.argsz = 15;
    EXPECT_EQ(caller.call(caller.container, VFIO_IOMMU_GET_INFO, info), -EINVAL);
    info.head.argsz = sizeof info.head;
    info.head.cap_offset = 99;
    EXPECT_EQ(caller.call(caller.container, VFIO_IOMMU_GET_INFO, info), 0);
    EXPECT_EQ(info.head.flags,
              static_cast<unsigned>(VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS));
    EXPECT_EQ(info.head.iova_pgsizes, 0x201000U);
    EXPECT_EQ(info.head.cap_offset, 0U);
    const std::uint32_t all = info.head.argsz;
    ASSERT_EQ(all, sizeof info.head + 16 + 16 + 2 * 16);
    EXPECT_EQ(caller.call(caller.container, VFIO_IOMMU_GET_INFO, info), 0);
    EXPECT_EQ(info.head.argsz, all);
    ASSERT_EQ(info.head.cap_offset, sizeof info.head);
    std::array<std::uint32_t, 4> entries{};
    std::memcpy(&entries, info.room.data(), sizeof entries);
    EXPECT_EQ(entries, (std::array<std::uint32_t, 4>{1U << 16 | VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
                                                     24 + 16, 2, 0}));
    std::array<std::uint64_t, 6> ranges{};
    std::memcpy(&ranges, info.room.data() + 16, sizeof ranges);
    EXPECT_EQ(ranges, (std::array<std::uint64_t, 6>{1U << 16 | VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
                                                    2, 0, 0xf'ffff, 0x20'0000, 0x2f'ffff}));
}

TEST(Type1, keeps_to_the_limits_of_entries_and_of_locked_memory) {
    VfioCaller caller({.entries = 3, .locked = ByteCount(4 * page)});
    caller.make_container();
    EXPECT_EQ(caller.map(caller.container, 0x1000, page), 0);
    EXPECT_EQ(caller.map(caller.container, 0x8000, 4 * page), -ENOMEM);
    EXPECT_EQ(caller.map(caller.container, 0x2000, page), 0);
    EXPECT_EQ(caller.map(caller.container, 0x3000, page), 0);
    EXPECT_EQ(caller.map(caller.container, 0x4000, page), -ENOSPC);
    EXPECT_EQ(caller.unmap(caller.container, 0x1000, 3 * page), 3 * page);
    EXPECT_EQ(caller.map(caller.container, 0x8000, 4 * page), 0);
}

TEST(Type1, fails_the_chosen_map) {
    VfioCaller caller({.fail_map = 3, .fail_errno = ENOMEM});
    caller.make_container();
    EXPECT_EQ(caller.map(caller.container, 0x1000, page), 0);
    EXPECT_EQ(caller.map(caller.container, 0x1000, page), -EEXIST);
    EXPECT_EQ(caller.map(caller.container, 0x2000, page), 0);
    EXPECT_EQ(caller.map(caller.container, 0x3000, page), -ENOMEM);
    EXPECT_EQ(caller.map(caller.container, 0x3000, page), 0);
    EXPECT_EQ(caller.program.mapped(), 3U);
}

TEST(Files, a_device_keeps_group_container_and_mappings) {
    VfioCaller caller;
    caller.make_container();
    ASSERT_EQ(caller.map(caller.container, 0x1000, page), 0);
    const auto device = static_cast<int>(caller.device_file(caller.group, "0000:05:00.0"));
    caller.close(caller.container);
    caller.close(caller.group);
    EXPECT_EQ(caller.program.mapped(), 1U);
    EXPECT_EQ(caller.open(caller.kernel.open_group(7)), -EBUSY);
    EXPECT_NE(caller.program.attached[0], run::Space::none);
    caller.close(device);
    EXPECT_EQ(caller.program.mapped(), 0U);
    EXPECT_EQ(caller.program.attached[0], run::Space::none);
    EXPECT_EQ(caller.program.events, std::vector<std::string>{"closed 0"});
    EXPECT_GT(caller.open(caller.kernel.open_group(7)), 0);
}

TEST(Files, the_last_group_takes_the_iommu_with_it) {
    VfioCaller caller;
    caller.make_container();
    ASSERT_EQ(caller.map(caller.container, 0x1000, page), 0);
    const int other = caller.open(caller.kernel.open_group(9));
    EXPECT_EQ(caller.set_container(other, caller.container), 0);
    EXPECT_EQ(caller.call(caller.group, VFIO_GROUP_UNSET_CONTAINER, 0), 0);
    EXPECT_EQ(caller.program.mapped(), 1U);
    caller.close(other);
    EXPECT_EQ(caller.program.mapped(), 0U);
    EXPECT_EQ(caller.map(caller.container, 0x1000, page), -EINVAL);
    EXPECT_EQ(caller.set_container(caller.group, caller.container), 0);
    EXPECT_EQ(caller.call(caller.container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU), 0);
    EXPECT_EQ(caller.map(caller.container, 0x1000, page), 0);
}

} // namespace
} // namespace moat::tests
