// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// vm_vfio_answers facts BDF...: prints what this machine's VFIO says of its devices, in the form
// that the other two read. vm_vfio_answers linux|model FACTS: puts the scripts to Linux, or to the
// state machine of `moat run` with these devices, and prints the answers.
#include "machine/vfio_host/pci_devices.hpp"
#include "machine/vfio_host/uapi.hpp"
#include "vfio_world.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string_view>
#include <sys/ioctl.h>

namespace moat::tests {
namespace {

namespace fs = std::filesystem;

/// Ends the program if a request fails that the facts need.
template <class T>
void ask(int file, unsigned long request, T& argument) {
    if (::ioctl(file, request, &argument) < 0) {
        std::perror("cannot query VFIO");
        std::exit(2);
    }
}

void print_device(int file, const machine::vfio_host::HostFunction& function) {
    vfio_device_info info{
        .argsz = sizeof info, .flags = 0, .num_regions = 0, .num_irqs = 0, .cap_offset = 0};
    ask(file, VFIO_DEVICE_GET_INFO, info);
    std::cout << "device " << to_string(function.info.address) << ' ' << *function.group << ' '
              << ((info.flags & VFIO_DEVICE_FLAGS_RESET) != 0 ? 1 : 0);
    unsigned table = ~0U;
    for (std::uint32_t index = 0; index != VFIO_PCI_VGA_REGION_INDEX; ++index) {
        struct {
            vfio_region_info region;
            std::array<std::byte, 256> room;
        } told{};

        told.region.argsz = sizeof told;
        told.region.index = index;
        ask(file, VFIO_DEVICE_GET_REGION_INFO, told);
        if (told.region.cap_offset != 0)
            table = index;
        std::cout << ' ' << told.region.size << ' ' << (told.region.flags & 7U);
    }
    std::cout << ' ' << table;
    for (std::uint32_t index = 0; index != VFIO_PCI_NUM_IRQS; ++index) {
        vfio_irq_info irq{.argsz = sizeof irq, .flags = 0, .index = index, .count = 0};
        std::cout << ' ' << (::ioctl(file, VFIO_DEVICE_GET_IRQ_INFO, &irq) < 0 ? 0 : irq.count);
    }
    std::cout << '\n';
}

/// Type1's pages and aperture.
void print_iommu(int container) {
    std::array<std::uint64_t, 512> room{};
    auto* const info = reinterpret_cast<vfio_iommu_type1_info*>(room.data());
    info->argsz = sizeof room;
    ask(container, VFIO_IOMMU_GET_INFO, room);
    std::cout << "pages " << info->iova_pgsizes << '\n';
    const auto* const bytes = reinterpret_cast<const std::byte*>(room.data());
    for (std::size_t at = info->cap_offset; at != 0 && at < sizeof room;) {
        vfio_info_cap_header header{};
        std::memcpy(&header, bytes + at, sizeof header);
        if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
            std::uint32_t count = 0;
            std::memcpy(&count, bytes + at + sizeof header, sizeof count);
            for (std::size_t i = 0; i != count; ++i) {
                std::array<std::uint64_t, 2> range{};
                std::memcpy(&range, bytes + at + 16 + i * sizeof range, sizeof range);
                std::cout << "range " << range[0] << ' ' << range[1] << '\n';
            }
        }
        at = header.next;
    }
}

int print_facts(std::span<char*> names) {
    const int container = ::open("/dev/vfio/vfio", O_RDWR);
    for (const char* const name : names) {
        const auto address = machine::vfio_host::parse_bdf(name);
        if (!address)
            return 2;
        const auto function = machine::vfio_host::find_function(*address);
        if (!function || !function->group)
            return 2;
        const std::string file = "/dev/vfio/" + std::to_string(*function->group);
        const int group = ::open(file.c_str(), O_RDWR);
        if (::ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
            return 2;
        if (name == names.front() && ::ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
            return 2;
        const std::string full = to_string(function->info.address);
        print_device(::ioctl(group, VFIO_GROUP_GET_DEVICE_FD, full.c_str()), *function);
        std::error_code error;
        for (const auto& each :
             fs::directory_iterator("/sys/bus/pci/devices/" + full + "/vfio-dev", error))
            if (const fs::path found = each.path().filename();
                fs::exists("/dev/vfio/devices" / found, error))
                std::cout << "file " << found.string() << '\n';
    }
    print_iommu(container);
    return 0;
}

[[nodiscard]] run::DeviceShape read_device(std::istream& in) {
    std::string name;
    run::DeviceShape shape;
    in >> name >> shape.group >> shape.resets;
    shape.address = machine::vfio_host::parse_bdf(name).value_or(machine::Bdf());
    for (unsigned index = 0; index != VFIO_PCI_VGA_REGION_INDEX; ++index) {
        std::uint64_t size = 0;
        unsigned flags = 0;
        in >> size >> flags;
        shape.regions[index] = {.size = ByteCount(size),
                                .readable = (flags & VFIO_REGION_INFO_FLAG_READ) != 0,
                                .writable = (flags & VFIO_REGION_INFO_FLAG_WRITE) != 0,
                                .mappable = (flags & VFIO_REGION_INFO_FLAG_MMAP) != 0};
    }
    in >> shape.msix_region;
    for (unsigned& each : shape.interrupts)
        in >> each;
    return shape;
}

[[nodiscard]] Facts read_facts(const char* path) {
    std::ifstream file(path);
    Facts facts;
    std::string line;
    while (std::getline(file, line)) {
        std::istringstream in(line);
        std::string kind;
        std::uint64_t first = 0;
        std::uint64_t last = 0;
        in >> kind;
        if (kind == "device")
            facts.devices.push_back(read_device(in));
        else if (kind == "file")
            in >> facts.device_files.emplace_back();
        else if (kind == "pages")
            in >> facts.page_sizes;
        else if (kind == "range" && in >> first >> last)
            facts.aperture.push_back(IovaRange::inclusive(Iova(first), Iova(last)));
    }
    return facts;
}

int answer(std::string_view whose, const char* path) {
    const Arena arena;
    const Facts facts = read_facts(path);
    if (facts.devices.empty() || facts.page_sizes == 0) {
        std::cerr << path << ": no facts of devices and of an IOMMU\n";
        return 2;
    }
    const auto world = whose == "linux" ? linux_world() : model_world(facts);
    const bool iommufd = !facts.device_files.empty();
    (iommufd ? ask_iommufd : ask_type1)(*world, facts);
    for (const unsigned seed : {1U, 2U, 3U})
        (iommufd ? ask_iommufd_at_random : ask_type1_at_random)(*world, facts, seed);
    return 0;
}

} // namespace
} // namespace moat::tests

int main(int count, char** words) {
    const std::string_view what = count > 2 ? words[1] : "";
    if (what == "facts")
        return moat::tests::print_facts(
            std::span(words, static_cast<std::size_t>(count)).subspan(2));
    if (what == "linux" || what == "model")
        return moat::tests::answer(what, words[2]);
    std::cerr << "usage: vm_vfio_answers facts BDF... | linux FACTS | model FACTS\n";
    return 2;
}
