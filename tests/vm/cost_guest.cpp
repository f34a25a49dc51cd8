// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The cost of a mapping beside that of the kernel's calls alone, and of a large BAR by leaves of
// each size. The test prints the figures; on a busy machine they are no criterion.
#include "guest.hpp"
#include "machine/vfio_host/uapi.hpp"

#include <array>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/utsname.h>

namespace moat::tests {
namespace {

namespace uapi = machine::vfio_host::uapi;
using Clock = std::chrono::steady_clock;

double nanoseconds_since(Clock::time_point began) {
    return std::chrono::duration<double, std::nano>(Clock::now() - began).count();
}

/// The same two calls into the kernel by hand, on another function's container.
class BareType1 {
  public:
    BareType1() {
        const auto function = *machine::vfio_host::find_function(large_bar);
        container_ = ::open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
        group_ = ::open(("/dev/vfio/" + std::to_string(function.group.value())).c_str(),
                        O_RDWR | O_CLOEXEC);
        good = container_ >= 0 && group_ >= 0 &&
               ::ioctl(group_, VFIO_GROUP_SET_CONTAINER, &container_) == 0 &&
               ::ioctl(container_, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0;
    }

    BareType1(const BareType1&) = delete;
    BareType1& operator=(const BareType1&) = delete;

    ~BareType1() {
        ::close(group_);
        ::close(container_);
    }

    bool map_and_unmap(Iova at, const machine::SharedMemory& memory) const {
        vfio_iommu_type1_dma_map map{};
        map.argsz = sizeof map;
        map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
        map.vaddr = memory.physical().value();
        map.iova = at.value();
        map.size = memory.size().value();
        vfio_iommu_type1_dma_unmap unmap{};
        unmap.argsz = sizeof unmap;
        unmap.iova = at.value();
        unmap.size = memory.size().value();
        return ::ioctl(container_, VFIO_IOMMU_MAP_DMA, &map) == 0 &&
               ::ioctl(container_, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0;
    }

    bool good = false;

  private:
    int container_ = -1;
    int group_ = -1;
};

/// And on another function's address space of iommufd.
class BareIommufd {
  public:
    BareIommufd() {
        const std::filesystem::path folder = "/sys/bus/pci/devices/" + to_string(large_bar);
        std::error_code error;
        for (const auto& each : std::filesystem::directory_iterator(folder / "vfio-dev", error))
            device_ = ::open(("/dev/vfio/devices/" + each.path().filename().string()).c_str(),
                             O_RDWR | O_CLOEXEC);
        iommufd_ = ::open("/dev/iommu", O_RDWR | O_CLOEXEC);
        uapi::IoasAllocate allocate;
        uapi::BindIommufd bind;
        bind.iommufd = iommufd_;
        good = device_ >= 0 && iommufd_ >= 0 &&
               ::ioctl(iommufd_, uapi::ioas_allocate, &allocate) == 0 &&
               ::ioctl(device_, uapi::device_bind_iommufd, &bind) == 0;
        ioas_ = allocate.ioas;
        uapi::AttachIoas attach;
        attach.ioas = ioas_;
        good = good && ::ioctl(device_, uapi::device_attach_ioas, &attach) == 0;
    }

    BareIommufd(const BareIommufd&) = delete;
    BareIommufd& operator=(const BareIommufd&) = delete;

    ~BareIommufd() {
        ::close(device_);
        ::close(iommufd_);
    }

    bool map_and_unmap(Iova at, const machine::SharedMemory& memory) const {
        uapi::IoasMap map;
        map.flags = uapi::IoasMap::fixed_iova | uapi::IoasMap::readable | uapi::IoasMap::writable;
        map.ioas = ioas_;
        map.virtual_address = memory.physical().value();
        map.length = memory.size().value();
        map.iova = at.value();
        uapi::IoasUnmap unmap;
        unmap.ioas = ioas_;
        unmap.iova = at.value();
        unmap.length = memory.size().value();
        return ::ioctl(iommufd_, uapi::ioas_map, &map) == 0 &&
               ::ioctl(iommufd_, uapi::ioas_unmap, &unmap) == 0;
    }

    bool good = false;

  private:
    int iommufd_ = -1;
    int device_ = -1;
    std::uint32_t ioas_ = 0;
};

class CostTest : public GuestTest {
  protected:
    template <class Bare>
    void compare_with_bare() {
        open_function(edu);
        const Bare bare;
        ASSERT_TRUE(bare.good);
        const auto memory = memory_of(1);
        constexpr Iova at(0x100000);
        const auto nanoseconds = [](auto&& once) {
            constexpr unsigned times = 20;
            const auto began = Clock::now();
            for (unsigned i = 0; i != times; ++i)
                if (!once())
                    ADD_FAILURE() << "mapped";
            return nanoseconds_since(began) / times;
        };
        // Alternately, so that other load affects both.
        std::array<double, 101> ours{};
        std::array<double, 101> by_hand{};
        std::array<double, 101> ratios{};
        for (std::size_t round = 0; round != ratios.size(); ++round) {
            by_hand[round] = nanoseconds([&] { return bare.map_and_unmap(at, memory); });
            ours[round] = nanoseconds([&] {
                return domain->map(at, 4_KiB, memory.physical(), read_write).has_value() &&
                       domain->unmap(at, 4_KiB).has_value();
            });
            ratios[round] = ours[round] / by_hand[round];
        }
        const auto median = [](auto& all) {
            std::ranges::sort(all);
            return all[all.size() / 2];
        };
        const double ratio = median(ratios);
        std::cout << name(machine->backend()) << ": map and unmap of 4 KiB: " << median(ours)
                  << " ns, by hand " << median(by_hand) << " ns, ratio " << ratio << '\n';
    }
};

TEST_F(CostTest, shows_a_mapping_beside_the_bare_call) {
    expected_backend() == Backend::type1 ? compare_with_bare<BareType1>()
                                         : compare_with_bare<BareIommufd>();
}

/// The BAR at another address, until it is restored.
class Moved {
  public:
    Moved(std::span<std::byte> bar, std::uint64_t beyond_a_gib) : bar_(bar) {
        const std::size_t room = bar.size() + (2_GiB).value();
        void* const reserved =
            ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        const auto at = align_up(reinterpret_cast<std::uintptr_t>(reserved), 30) + beyond_a_gib;
        moved_ = ::mremap(bar.data(), bar.size(), bar.size(), MREMAP_MAYMOVE | MREMAP_FIXED,
                          reinterpret_cast<void*>(at));
    }

    Moved(const Moved&) = delete;
    Moved& operator=(const Moved&) = delete;

    ~Moved() {
        (void)::mremap(moved_, bar_.size(), bar_.size(), MREMAP_MAYMOVE | MREMAP_FIXED,
                       bar_.data());
    }

    [[nodiscard]] bool good() const { return moved_ != MAP_FAILED; }

    [[nodiscard]] PhysicalAddress physical() const {
        return PhysicalAddress(reinterpret_cast<std::uintptr_t>(moved_));
    }

  private:
    std::span<std::byte> bar_;
    void* moved_ = nullptr;
};

[[nodiscard]] bool maps_leaves_at_once() {
    utsname about{};
    ::uname(&about);
    int major = 0;
    int minor = 0;
    return std::sscanf(about.release, "%d.%d", &major, &minor) == 2 &&
           std::array{major, minor} >= std::array{6, 18};
}

/// Before 6.18 the kernel looks up each 4 KiB page, whatever the leaf, and takes as long.
TEST_F(CostTest, a_large_bar_is_mapped_for_dma_by_its_leaves) {
    if (expected_backend() != Backend::type1 || !maps_leaves_at_once())
        return;
    open_function(large_bar);
    const auto bars = function().info().bars;
    const auto largest = std::ranges::max_element(
        bars, {}, [](const machine::Bar& bar) { return bar.size.value(); });
    const auto bar = machine->bar_memory(large_bar, static_cast<unsigned>(largest - bars.begin()));
    ASSERT_TRUE(bar) << bar.error();
    const auto milliseconds = [&](PhysicalAddress memory) {
        const auto began = Clock::now();
        const auto mapped = domain->map(Iova((4_GiB).value()), largest->size, memory, read_write);
        const double took = nanoseconds_since(began) / 1e6;
        EXPECT_TRUE(mapped) << mapped.error();
        EXPECT_TRUE(domain->unmap(Iova((4_GiB).value()), largest->size));
        return took;
    };
    const auto moved = [&](ByteCount beyond_a_gib) {
        const Moved elsewhere(*bar, beyond_a_gib.value());
        EXPECT_TRUE(elsewhere.good());
        return milliseconds(elsewhere.physical());
    };
    const PhysicalAddress placed(reinterpret_cast<std::uintptr_t>(bar->data()));
    const double by_1_gib = milliseconds(placed);
    const double by_2_mib = moved(2_MiB);
    const double by_4_kib = moved(4_KiB);
    std::cout << "DMA map of a BAR of 4 GiB: " << by_1_gib << " ms where moat places it, "
              << by_2_mib << " ms at 2 MiB, " << by_4_kib << " ms at 4 KiB\n";
    EXPECT_LT(by_1_gib * 20, by_4_kib);
}

} // namespace
} // namespace moat::tests
