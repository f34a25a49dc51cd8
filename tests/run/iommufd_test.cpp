// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iommufd of the state machine: which effects its requests have. tests/vm compares the answers with
// Linux.
#include "vfio_caller.hpp"

#include <gtest/gtest.h>

namespace moat::tests {
namespace {

namespace uapi = machine::vfio_host::uapi;

constexpr std::uint32_t all_flags =
    uapi::IoasMap::fixed_iova | uapi::IoasMap::writable | uapi::IoasMap::readable;

class IommufdTest : public ::testing::Test {
  protected:
    void SetUp() override {
        iommufd = caller.open(caller.kernel.open_iommufd());
        ioas = allocate();
    }

    std::uint32_t allocate() {
        uapi::IoasAllocate made;
        EXPECT_EQ(caller.call(iommufd, uapi::ioas_allocate, made), 0);
        return made.ioas;
    }

    /// Return: a device's file that is bound.
    int bind(run::Device device) {
        const int file = caller.open(caller.kernel.open_device(device));
        uapi::BindIommufd bind{.iommufd = iommufd};
        EXPECT_EQ(caller.call(file, uapi::device_bind_iommufd, bind), 0);
        return file;
    }

    std::int64_t attach(int file, std::uint32_t table) {
        uapi::AttachIoas attach{.ioas = table};
        return caller.call(file, uapi::device_attach_ioas, attach);
    }

    std::int64_t map(std::uint32_t to, std::uint64_t iova, std::uint64_t bytes) {
        uapi::IoasMap map{.flags = all_flags,
                          .ioas = to,
                          .virtual_address = VfioCaller::memory,
                          .length = bytes,
                          .iova = iova};
        return caller.call(iommufd, uapi::ioas_map, map);
    }

    std::int64_t destroy(std::uint32_t object) {
        uapi::Destroy destroy{.object = object};
        return caller.call(iommufd, uapi::destroy, destroy);
    }

    VfioCaller caller;
    int iommufd = -1;
    std::uint32_t ioas = 0;
};

TEST_F(IommufdTest, a_device_is_used_once_it_is_bound) {
    const int file = caller.open(caller.kernel.open_device(0));
    EXPECT_EQ(caller.kernel.device_of(caller.program.file_of(file)), std::nullopt);
    EXPECT_EQ(caller.call(file, VFIO_DEVICE_RESET, 0), -EINVAL);
    const int bound = bind(0);
    EXPECT_EQ(caller.kernel.device_of(caller.program.file_of(bound)), 0U);
    EXPECT_EQ(caller.call(bound, VFIO_DEVICE_RESET, 0), 0);
    EXPECT_EQ(caller.open(caller.kernel.open_group(7)), -EBUSY);
    EXPECT_EQ(caller.open(caller.kernel.open_device(3)), -ENOENT);
    caller.close(bound);
    EXPECT_GT(caller.open(caller.kernel.open_group(7)), 0);
}

TEST_F(IommufdTest, a_device_moves_between_spaces) {
    const std::uint32_t other = allocate();
    const int file = bind(0);
    EXPECT_EQ(attach(file, ioas), 0);
    const run::Space first = caller.program.attached[0];
    EXPECT_NE(first, run::Space::none);
    EXPECT_EQ(destroy(ioas), -EBUSY);
    EXPECT_EQ(attach(file, other), 0);
    EXPECT_NE(caller.program.attached[0], first);
    EXPECT_EQ(destroy(ioas), 0);
    uapi::DetachIoas detach;
    EXPECT_EQ(caller.call(file, uapi::device_detach_ioas, detach), 0);
    EXPECT_EQ(caller.program.attached[0], run::Space::none);
}

TEST_F(IommufdTest, a_copy_of_many_mappings_is_as_many) {
    const std::uint32_t other = allocate();
    ASSERT_EQ(map(ioas, 0x1000, page), 0);
    ASSERT_EQ(map(ioas, 0x2000, 2 * page), 0);
    uapi::IoasCopy copy{.flags = all_flags,
                        .to_ioas = other,
                        .from_ioas = ioas,
                        .length = 2 * page,
                        .to_iova = 0x10000,
                        .from_iova = 0x1000};
    EXPECT_EQ(caller.call(iommufd, uapi::ioas_copy, copy), 0);
    EXPECT_EQ(caller.program.mapped(), 4U);
    EXPECT_EQ(destroy(ioas), 0);
    EXPECT_EQ(caller.program.mapped(), 2U);
}

TEST_F(IommufdTest, a_copy_that_fails_midway_leaves_nothing) {
    VfioCaller failing({.fail_map = 4, .fail_errno = ENOMEM});
    const int file = failing.open(failing.kernel.open_iommufd());
    uapi::IoasAllocate made;
    ASSERT_EQ(failing.call(file, uapi::ioas_allocate, made), 0);
    for (const std::uint64_t at : {0x1000, 0x2000}) {
        uapi::IoasMap map{.flags = all_flags,
                          .ioas = made.ioas,
                          .virtual_address = VfioCaller::memory,
                          .length = page,
                          .iova = at};
        ASSERT_EQ(failing.call(file, uapi::ioas_map, map), 0);
    }
    uapi::IoasCopy copy{.flags = all_flags,
                        .to_ioas = made.ioas,
                        .from_ioas = made.ioas,
                        .length = 2 * page,
                        .to_iova = 0x10000,
                        .from_iova = 0x1000};
    EXPECT_EQ(failing.call(file, uapi::ioas_copy, copy), -ENOMEM);
    EXPECT_EQ(failing.program.mapped(), 2U);
}

TEST_F(IommufdTest, a_device_keeps_its_iommufd) {
    const int file = bind(0);
    EXPECT_EQ(attach(file, ioas), 0);
    ASSERT_EQ(map(ioas, 0x1000, page), 0);
    caller.close(iommufd);
    EXPECT_EQ(caller.program.mapped(), 1U);
    caller.close(file);
    EXPECT_EQ(caller.program.mapped(), 0U);
    EXPECT_EQ(caller.program.attached[0], run::Space::none);
}

} // namespace
} // namespace moat::tests
