// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The requests of iommufd and of device files that both worlds answer: each one with right, short,
// long and wrong arguments, and many at random.
#include "vfio_asker.hpp"

#include <random>

namespace moat::tests {
namespace {

namespace uapi = machine::vfio_host::uapi;

constexpr std::uint64_t whole = ~std::uint64_t{0};
/// Where arrays lie.
constexpr std::uint64_t arrays = Arena::end - Arena::argument_bytes / 2;
constexpr std::uint32_t fixed = 1, writable = 2, readable = 4;

[[nodiscard]] Words map_words(std::uint32_t ioas, std::uint64_t iova, std::uint64_t bytes,
                              std::uint64_t address = memory,
                              std::uint32_t flags = fixed | writable | readable,
                              std::uint32_t size = 40) {
    Words words = {size, flags, ioas, 0};
    for (const std::uint64_t each : {address, bytes, iova})
        add(words, each);
    return words;
}

[[nodiscard]] Words unmap_words(std::uint32_t ioas, std::uint64_t iova, std::uint64_t bytes,
                                std::uint32_t size = 24) {
    Words words = {size, ioas};
    add(words, iova);
    add(words, bytes);
    return words;
}

[[nodiscard]] Words copy_words(std::uint32_t to, std::uint64_t to_iova, std::uint32_t from,
                               std::uint64_t from_iova, std::uint64_t bytes,
                               std::uint32_t flags = fixed | writable | readable) {
    Words words = {40, flags, to, from};
    for (const std::uint64_t each : {bytes, to_iova, from_iova})
        add(words, each);
    return words;
}

[[nodiscard]] Words option_words(std::uint32_t option, std::uint32_t operation,
                                 std::uint32_t object, std::uint64_t value) {
    Words words = {24, option, operation, object};
    add(words, value);
    return words;
}

[[nodiscard]] Words hwpt_words(std::uint32_t device, std::uint32_t ioas, std::uint32_t flags = 0,
                               std::uint32_t type = 0, std::uint32_t bytes = 0) {
    return {48, flags, device, ioas, 0, 0, type, bytes, 0, 0, 0, 0};
}

/// `quiet`: without the alignment, which Linux keeps after some attaches that fail.
void ask_ranges(Asker& ask, int iommufd, std::uint32_t ioas, std::uint32_t room = 8,
                bool quiet = false) {
    std::memset(reinterpret_cast<void*>(arrays), 0, 256);
    Words words = {32, ioas, room, 0};
    add(words, arrays);
    add(words, 0);
    if (quiet)
        ask.quiet("ranges", iommufd, uapi::ioas_iova_ranges, words);
    else
        ask.words("ranges", iommufd, uapi::ioas_iova_ranges, words);
    std::printf("  are");
    for (std::size_t i = 0; i != 8; ++i)
        std::printf(" %llx", reinterpret_cast<const unsigned long long*>(arrays)[i]);
    std::printf("\n");
}

void ask_allow(Asker& ask, int iommufd, std::uint32_t ioas,
               const std::vector<std::uint64_t>& bounds) {
    std::memcpy(reinterpret_cast<void*>(arrays), bounds.data(), bounds.size() * 8);
    Words words = {24, ioas, static_cast<std::uint32_t>(bounds.size() / 2), 0};
    add(words, arrays);
    ask.words("allow", iommufd, uapi::ioas_allow_iovas, words);
}

/// One IOAS: every wrong argument, and what may be mapped where.
void ask_ioas(Asker& ask, int iommufd, std::uint32_t ioas, std::uint32_t other) {
    const auto map = [&](const Words& words) { ask.words("map", iommufd, uapi::ioas_map, words); };
    const auto unmap = [&](std::uint64_t iova, std::uint64_t bytes) {
        ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, iova, bytes));
    };
    const auto copy = [&](const Words& words) {
        ask.words("copy", iommufd, uapi::ioas_copy, words);
    };
    map(map_words(ioas, 0x1000, page));
    map(map_words(ioas, 0x1000, page));
    map(map_words(ioas, 0x2000, 2 * page, memory, fixed | readable));
    map(map_words(ioas, 0x8000, 2 * page, memory, fixed));
    map(map_words(ioas, 0x8001, page));
    map(map_words(ioas, 0x8000, page + 1));
    map(map_words(ioas, 0x8000, page, memory + 8));
    map(map_words(ioas, 0x8008, page - 8, memory + 8));
    map(map_words(ioas, 0x8000, 0));
    map(map_words(ioas, -page, 2 * page));
    map(map_words(ioas, 0x8000, 2 * page, -page));
    map(map_words(ioas, 0x8000, whole));
    map(map_words(ioas, whole, page));
    map(map_words(ioas, 0x8000, page, memory, 8 | fixed | readable));
    map(map_words(77, 0x8000, page));
    map(map_words(ioas, 0xfee0'0000, page));
    map(map_words(ioas, 0xfedf'f000, 2 * page));
    map(map_words(ioas, 0x7f'ffff'f000, page));
    map(map_words(ioas, 0x80'0000'0000, page));
    for (const std::uint32_t size : {0U, 4U, 39U, 41U, 44U, 5000U})
        map(map_words(ioas, 0xa000, page, memory, 7, size));
    Words longer = map_words(ioas, 0xb000, page, memory, 7, 44);
    longer.push_back(0);
    map(longer);
    longer.back() = 1;
    map(longer);
    // Where the address is found.
    for (const std::uint64_t bytes : {page, 3 * page, std::uint64_t{1} << 20})
        map(map_words(ioas, 0, bytes, memory, writable | readable));
    map(map_words(ioas, 0, page, memory + page, writable | readable));
    for (const std::uint64_t bytes : {page, 2 * page, 3 * page})
        copy(copy_words(ioas, 0x40'0000 + bytes * 16, ioas, 0x1000, bytes));
    copy(copy_words(ioas, 0x50'0000, ioas, 0x3000, page));
    copy(copy_words(other, 0x1000, ioas, 0x2000, 2 * page));
    copy(copy_words(other, 0x1000, ioas, 0x2000, 2 * page));
    copy(copy_words(other, 0, ioas, 0x2000, 2 * page, readable));
    copy(copy_words(other, 0x9000, ioas, 0x60'0000, page));
    copy(copy_words(other, 0x9000, ioas, 0x2000, 0));
    copy(copy_words(other, 0x9000, ioas, -page, 2 * page));
    copy(copy_words(other, 0x9000, ioas, 0x2000, whole));
    copy(copy_words(other, 0x9000, ioas, 0x2000, page, 8));
    copy(copy_words(77, 0x9000, ioas, 0x2000, page));
    copy(copy_words(other, 0x9000, 77, 0x2000, page));
    unmap(0x2000, page);
    unmap(0x3000, page);
    unmap(0x1000, 2 * page);
    unmap(0x1000, page);
    unmap(0x1000, page);
    unmap(0, 0x2000);
    unmap(0, 0);
    unmap(-page, 2 * page);
    unmap(whole, page);
    unmap(0x1000, whole);
    unmap(0, 0x1'0000);
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(77, 0, whole));
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, 0, whole, 23));
    unmap(0, whole);
    unmap(0, whole);
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(other, 0, whole));
}

void ask_objects(Asker& ask, int iommufd) {
    for (const std::uint32_t size : {0U, 8U, 11U, 12U, 16U})
        ask.words("ioas", iommufd, uapi::ioas_allocate, {size, 0, 9, 0});
    ask.words("ioas", iommufd, uapi::ioas_allocate, {12, 1, 9});
    ask.words("ioas", iommufd, uapi::ioas_allocate, {16, 0, 9, 1});
    for (const std::uint32_t object : {0U, 1U, 1U, 77U})
        ask.words("destroy", iommufd, uapi::destroy, {8, object});
    ask.words("destroy", iommufd, uapi::destroy, {4, 2});
    ask.words("ioas", iommufd, uapi::ioas_allocate, {12, 0, 9});
    for (const std::uint32_t operation : {0U, 1U, 2U, 0x10001U})
        for (const std::uint32_t option : {0U, 1U, 2U})
            for (const std::uint32_t object : {0U, 1U, 77U})
                ask.words("option", iommufd, uapi::option,
                          option_words(option, operation, object, operation == 0 ? 1 : 9));
    ask.words("option", iommufd, uapi::option, option_words(1, 0, 1, 2));
    ask.words("option", iommufd, uapi::option, option_words(1, 0, 1, 0));
    ask.words("option", iommufd, uapi::option, option_words(1, 1, 1, 9));
    ask.words("option", iommufd, uapi::option, option_words(1, 0, 1, 1));
    ask.number("unknown", iommufd, _IO(VFIO_TYPE, 0xf0), 0);
    ask.number("null", iommufd, uapi::destroy, 0);
}

/// Binds, attaches and detaches a device; `ioas` and `other` are there.
void ask_attaching(Asker& ask, int iommufd, int device, std::uint32_t ioas, std::uint32_t other) {
    const auto descriptor = static_cast<std::uint32_t>(iommufd);
    ask.words("device", device, VFIO_DEVICE_GET_INFO, {20, 0, 0, 0, 0});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask.quiet("bind", device, uapi::device_bind_iommufd, {15, 0, descriptor, 9});
    ask.quiet("bind", device, uapi::device_bind_iommufd, {16, 1, descriptor, 9});
    ask.quiet("bind", device, uapi::device_bind_iommufd, {16, 0, ~0U, 9});
    ask.quiet("bind", device, uapi::device_bind_iommufd,
              {16, 0, static_cast<std::uint32_t>(device), 9});
    const std::uint32_t object =
        ask.quiet("bind", device, uapi::device_bind_iommufd, {16, 0, descriptor, 9})[3];
    ask.quiet("bind", device, uapi::device_bind_iommufd, {16, 0, descriptor, 9});
    ask.words("destroy", iommufd, uapi::destroy, {8, object});
    for (const std::uint32_t argsz : {8U, 11U})
        ask.words("attach", device, uapi::device_attach_ioas, {argsz, 0, ioas});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0x80, ioas});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, 77});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, object});
    ask_ranges(ask, iommufd, ioas);
    const std::uint32_t hwpt =
        ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas})[2];
    ask_ranges(ask, iommufd, ioas);
    ask_ranges(ask, iommufd, ioas, 1);
    ask_ranges(ask, iommufd, hwpt);
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, hwpt});
    for (const std::uint32_t each : {ioas, hwpt})
        ask.words("destroy", iommufd, uapi::destroy, {8, each});
    ask_ioas(ask, iommufd, ioas, other);
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0x8000, page, 0x1000));
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, other});
    ask_ranges(ask, iommufd, ioas);
    ask.words("detach", device, uapi::device_detach_ioas, {7, 0});
    ask.words("detach", device, uapi::device_detach_ioas, {8, 0x80});
    ask.words("detach", device, uapi::device_detach_ioas, {8, 0});
    ask.words("detach", device, uapi::device_detach_ioas, {8, 0});
    ask_ranges(ask, iommufd, other);
    for (const Words& each :
         {hwpt_words(object, ioas), hwpt_words(object, ioas, 0x100), hwpt_words(object, 77),
          hwpt_words(77, ioas), hwpt_words(object, object), hwpt_words(ioas, ioas),
          hwpt_words(object, ioas, 0, 0, 8)})
        ask.words("hwpt", iommufd, uapi::hwpt_allocate, each);
    ask_ranges(ask, iommufd, ioas);
    ask.words("destroy", iommufd, uapi::destroy, {8, ioas});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, hwpt});
    ask_ranges(ask, iommufd, ioas);
    ask.words("destroy", iommufd, uapi::destroy, {8, hwpt});
    ask.words("detach", device, uapi::device_detach_ioas, {8, 0});
    ask.words("destroy", iommufd, uapi::destroy, {8, hwpt});
    ask.words("hardware", iommufd, uapi::hardware_info, {40, 1, object, 0, 0, 0, 0, 0, 0, 0});
    ask.words("hardware", iommufd, uapi::hardware_info, {40, 0, ioas, 0, 0, 0, 0, 0, 0, 0});
    ask.words("hardware", iommufd, uapi::hardware_info, {27, 0, object, 0, 0, 0, 0, 0, 0, 0});
    // What is mapped where the device reaches nothing.
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0xfee0'0000, page));
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask.words("hwpt", iommufd, uapi::hwpt_allocate, hwpt_words(object, ioas));
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, 0, whole));
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0x80'0000'0000, page));
    ask.words("hwpt", iommufd, uapi::hwpt_allocate, hwpt_words(object, ioas));
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, 0, whole));
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0x8, 8));
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, 0, whole));
    ask_allow(ask, iommufd, ioas, {0x1'0000, 0xffff'ffff});
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask_allow(ask, iommufd, ioas, {0x1'0000, 0xf'ffff, 0x20'0000, 0x2f'ffff});
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0x1000, page));
    for (const std::uint64_t bytes : {std::uint64_t{0x8'0000}, std::uint64_t{0x8'0000}, page})
        ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0, bytes, memory, 6));
    ask.words("map", iommufd, uapi::ioas_map, map_words(ioas, 0, 0x20'0000, memory, 6));
    ask.words("attach", device, uapi::device_attach_ioas, {12, 0, ioas});
    ask_allow(ask, iommufd, ioas, {0xfee0'0000, 0xfeef'ffff});
    ask_allow(ask, iommufd, ioas, {0x2000, 0x1000});
    ask_allow(ask, iommufd, ioas, {0x2000, 0x2000});
    ask_allow(ask, iommufd, ioas, {0x1000, 0x2fff, 0x2000, 0x3fff});
    ask_allow(ask, iommufd, ioas, {});
    ask_allow(ask, iommufd, 77, {});
    ask.words("detach", device, uapi::device_detach_ioas, {8, 0});
    ask.words("unmap", iommufd, uapi::ioas_unmap, unmap_words(ioas, 0, whole));
}

} // namespace

void ask_iommufd(VfioWorld& world, const Facts& facts) {
    Asker ask(world);
    const int iommufd = ask.open("iommufd", "/dev/iommu");
    ask_objects(ask, iommufd);
    const std::uint32_t ioas = ask.words("ioas", iommufd, uapi::ioas_allocate, {12, 0, 9})[2];
    const std::uint32_t other = ask.words("ioas", iommufd, uapi::ioas_allocate, {12, 0, 9})[2];
    ask_ranges(ask, iommufd, ioas);
    ask_ioas(ask, iommufd, ioas, other);
    const std::string group = "/dev/vfio/" + std::to_string(facts.devices[0].group);
    for (std::size_t i = 0; i != facts.devices.size(); ++i) {
        const std::string file = "/dev/vfio/devices/" + facts.device_files[i];
        const int by_group = ask.open("group", group);
        const int device = ask.open("device", file);
        ask.quiet("bind", device, uapi::device_bind_iommufd,
                  {16, 0, static_cast<std::uint32_t>(iommufd), 9});
        ask.close(by_group);
        ask.close(device);
        const int again = ask.open("device", file);
        const int third = ask.open("device", file);
        ask_attaching(ask, iommufd, again, ioas, other);
        ask.quiet("bind", third, uapi::device_bind_iommufd,
                  {16, 0, static_cast<std::uint32_t>(iommufd), 9});
        ask.close(ask.open("group", group));
        ask_device(ask, again);
        ask.close(third);
        ask.close(again);
    }
    ask.close(iommufd);
}

namespace {

/// An iommufd whose objects have small numbers, and its devices, each bound or not.
class RandomIommufd {
  public:
    RandomIommufd(Asker& ask, const Facts& facts, unsigned seed)
        : ask_(ask), facts_(facts), random_(seed), devices_(facts.devices.size(), -1) {}

    void run(unsigned steps) {
        for (unsigned step = 0; step != steps; ++step)
            once();
        for (const int each : devices_)
            ask_.close(each);
        ask_.close(iommufd_);
    }

  private:
    [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
        return static_cast<std::uint32_t>(random_() % bound);
    }

    [[nodiscard]] std::uint32_t object() { return below(12) == 0 ? below(100) : 1 + below(7); }

    // Whole pages, below the end; see ask_ranges().
    [[nodiscard]] std::uint64_t iova() {
        constexpr std::array<std::uint64_t, 4> odd = {0xfedf'e000, 0x7f'ffff'f000, -2 * page,
                                                      whole};
        return below(12) == 0 ? odd[below(odd.size())] : below(24) * page;
    }

    [[nodiscard]] std::uint64_t bytes() { return std::uint64_t{below(5)} * page; }

    [[nodiscard]] std::uint64_t address() { return memory + std::uint64_t{below(64)} * page; }

    [[nodiscard]] std::uint32_t map_flags() {
        return below(24) == 0 ? below(16) : (below(4) != 0 ? fixed : 0) | (1 + below(3)) << 1U;
    }

    void once() {
        if (iommufd_ < 0)
            iommufd_ = ask_.open("iommufd", "/dev/iommu");
        switch (below(40)) {
        case 0:
        case 1:
        case 2:
            ask_.words("ioas", iommufd_, uapi::ioas_allocate, {12, 0, 9});
            break;
        case 3:
            ask_.words("destroy", iommufd_, uapi::destroy, {8, object()});
            break;
        case 4:
        case 5:
        case 6:
        case 7:
        case 8:
            use_device();
            break;
        case 9:
            ask_.words("hwpt", iommufd_, uapi::hwpt_allocate, hwpt_words(object(), object()));
            break;
        case 10:
        case 11:
            ask_ranges(ask_, iommufd_, object(), below(4), true);
            break;
        case 12:
            ask_.words("option", iommufd_, uapi::option,
                       option_words(below(3), below(2), below(2) == 0 ? 0 : object(), below(3)));
            break;
        case 13:
            allow();
            break;
        default:
            use_ioas();
        }
    }

    void allow() {
        std::vector<std::uint64_t> bounds;
        for (std::uint32_t count = below(3); count != 0; --count) {
            const std::uint64_t start = iova();
            bounds.insert(bounds.end(), {start, start + bytes() * 4 - 1});
        }
        ask_allow(ask_, iommufd_, object(), bounds);
    }

    void use_ioas() {
        switch (below(8)) {
        case 0:
        case 1:
        case 2:
        case 3:
            ask_.words("map", iommufd_, uapi::ioas_map,
                       map_words(object(), iova(), bytes(), address(), map_flags()));
            break;
        case 4:
            ask_.words("copy", iommufd_, uapi::ioas_copy,
                       copy_words(object(), iova(), object(), iova(), bytes(), map_flags()));
            break;
        default: {
            const bool all = below(12) == 0;
            ask_.words("unmap", iommufd_, uapi::ioas_unmap,
                       unmap_words(object(), all ? 0 : iova(), all ? whole : bytes()));
        }
        }
    }

    void use_device() {
        const std::uint32_t which = below(static_cast<std::uint32_t>(devices_.size()));
        int& device = devices_[which];
        if (device < 0) {
            device = ask_.open("device", "/dev/vfio/devices/" + facts_.device_files[which]);
            ask_.quiet("bind", device, uapi::device_bind_iommufd,
                       {16, 0, static_cast<std::uint32_t>(iommufd_), 9});
        }
        const std::uint32_t what = below(16);
        if (what == 0) {
            std::printf("close\n");
            ask_.close(device);
            device = -1;
        } else if (what < 4) {
            ask_.words("detach", device, uapi::device_detach_ioas, {8, 0});
        } else {
            ask_.words("attach", device, uapi::device_attach_ioas, {12, 0, object()});
        }
    }

    Asker& ask_;
    const Facts& facts_;
    std::mt19937 random_;
    int iommufd_ = -1;
    std::vector<int> devices_;
};

} // namespace

void ask_iommufd_at_random(VfioWorld& world, const Facts& facts, unsigned seed) {
    Asker ask(world);
    RandomIommufd(ask, facts, seed).run(3000);
}

} // namespace moat::tests
