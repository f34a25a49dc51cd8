// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The requests of type1 that both worlds answer: each one with right, short, long and wrong
// arguments, and many at random.
#include "vfio_asker.hpp"

#include <random>

namespace moat::tests {
namespace {

[[nodiscard]] Words map_words(std::uint64_t iova, std::uint64_t size,
                              std::uint64_t address = memory, std::uint32_t flags = 3,
                              std::uint32_t argsz = 32) {
    Words words = {argsz, flags};
    for (const std::uint64_t each : {address, iova, size})
        add(words, each);
    return words;
}

[[nodiscard]] Words unmap_words(std::uint64_t iova, std::uint64_t size, std::uint32_t flags = 0,
                                std::uint32_t argsz = 24) {
    Words words = {argsz, flags};
    add(words, iova);
    add(words, size);
    return words;
}

void ask_chain(Asker& ask, int container) {
    const std::uint64_t at = Arena::end - Arena::argument_bytes;
    auto* const words = reinterpret_cast<std::uint32_t*>(at);
    std::memset(words, 0, page);
    words[0] = page;
    const std::int64_t result = ask.world().ioctl(container, VFIO_IOMMU_GET_INFO, at);
    std::printf("info(4096) = %lld %x\n", static_cast<long long>(result), words[0]);
    for (std::uint32_t offset = words[4]; offset != 0 && offset < page / 2;
         offset = words[offset / 4 + 1]) {
        const std::uint32_t* const capability = words + offset / 4;
        const std::uint32_t id = capability[0] & 0xffffU;
        if (id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION)
            continue;
        const std::size_t length =
            id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL ? 3 : 4 + 4 * std::size_t{capability[2]};
        std::printf("capability %x:", capability[0]);
        for (std::size_t i = 2; i < length && i < page / 8; ++i)
            std::printf(" %x", capability[i]);
        std::printf("\n");
    }
}

/// The information of a container's IOMMU, without the capability of migration, which
/// the state machine lacks.
void ask_info(Asker& ask, int container) {
    ask.words("info", container, VFIO_IOMMU_GET_INFO, {15, 9, 9, 9, 9, 9});
    for (const std::uint32_t argsz : {16U, 20U, 24U}) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        const std::array<std::uint32_t, 6> head = {argsz, 9, 9, 9, 9, 9};
        std::memcpy(reinterpret_cast<void*>(at), &head, sizeof head);
        const std::int64_t result = ask.world().ioctl(container, VFIO_IOMMU_GET_INFO, at);
        std::array<std::uint32_t, 6> after{};
        std::memcpy(&after, reinterpret_cast<void*>(at), sizeof after);
        std::printf("info(%u) = %lld %s [1]=%x [2]=%x [3]=%x [4]=%x [5]=%x\n", argsz,
                    static_cast<long long>(result), after[0] > argsz ? "grows" : "stays", after[1],
                    after[2], after[3], after[4], after[5]);
    }
    ask_chain(ask, container);
}

[[nodiscard]] std::string group_file(const run::DeviceShape& device) {
    return "/dev/vfio/" + std::to_string(device.group);
}

void ask_maps(Asker& ask, int container, const Facts& facts) {
    const auto map = [&](std::uint64_t iova, std::uint64_t size, std::uint64_t address = memory,
                         std::uint32_t flags = 3, std::uint32_t argsz = 32) {
        ask.words("map", container, VFIO_IOMMU_MAP_DMA,
                  map_words(iova, size, address, flags, argsz));
    };
    const auto unmap = [&](std::uint64_t iova, std::uint64_t size, std::uint32_t flags = 0,
                           std::uint32_t argsz = 24) {
        ask.words("unmap", container, VFIO_IOMMU_UNMAP_DMA, unmap_words(iova, size, flags, argsz));
    };
    map(0x1000, page);
    map(0x2000, page, memory, 1);
    map(0x4000, 2 * page, memory, 2, 4000);
    map(0x1000, page);
    map(0, 0x10000);
    for (const std::uint32_t argsz : {0U, 8U, 31U})
        map(0x8000, page, memory, 3, argsz);
    for (const std::uint32_t flags : {0U, 8U, 0x83U, 0x8000'0000U})
        map(0x8000, page, memory, flags);
    map(0x8000, 0);
    map(0x8001, page);
    map(0x8000, page + 1);
    map(0x8000, page, memory + 8);
    map(-page, 2 * page);
    map(-page, page);
    map(0x8000, 2 * page, -page);
    map(0x8000, page, 0x1000);
    map(0x8000, 2 * page, Arena::end - page);
    for (const IovaRange& each : facts.aperture) {
        const std::uint64_t last = each.last().value();
        map(last + 1 - page, page);
        map(last + 1, page);
        map(last + 1 - 2 * page, 4 * page);
    }
    ask.words("short map", container, VFIO_IOMMU_MAP_DMA, map_words(0x8000, page), 28);
    ask.words("short map", container, VFIO_IOMMU_MAP_DMA, map_words(0x8000, page, memory, 3, 8),
              28);
    unmap(0x4000, page);
    unmap(0x5000, page);
    unmap(0x3000, 2 * page);
    unmap(0x5000, 2 * page);
    unmap(0x1000, 0);
    unmap(0x1001, page);
    unmap(0x1000, page - 1);
    unmap(-page, 2 * page);
    for (const std::uint32_t flags : {1U, 2U, 3U, 5U, 8U, 0x8000'0000U})
        unmap(0x1000, page, flags);
    for (const std::uint32_t argsz : {0U, 8U, 23U})
        unmap(0x1000, page, 0, argsz);
    unmap(0, page);
    unmap(0x1000'0000, page);
    unmap(0, 0x7000);
    unmap(0, 0x7000);
    map(0x1000, page);
    unmap(0, -page);
    map(0x1000, page);
    unmap(0, 0, 2);
    unmap(0, 0, 2);
    unmap(0, 0);
    ask.words("short unmap", container, VFIO_IOMMU_UNMAP_DMA, unmap_words(0x8000, page), 20);
}

} // namespace

void ask_type1(VfioWorld& world, const Facts& facts) {
    Asker ask(world);
    const int container = ask.open("container", "/dev/vfio/vfio");
    ask.number("version", container, VFIO_GET_API_VERSION, 0);
    for (const std::uint64_t extension : {0, 1, 2, 3, 5, 7, 8, 9, 77})
        ask.number("extension", container, VFIO_CHECK_EXTENSION, extension);
    ask.words("info", container, VFIO_IOMMU_GET_INFO, {24, 0, 0, 0, 0, 0});
    ask.words("map", container, VFIO_IOMMU_MAP_DMA, map_words(0, page));
    ask.number("iommu", container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
    ask.number("unknown", container, VFIO_GET_API_VERSION + 99, 0);
    std::vector<int> groups;
    for (const run::DeviceShape& each : facts.devices) {
        const int group = groups.emplace_back(ask.open("group", group_file(each)));
        ask.open("group again", group_file(each));
        for (const std::uint32_t argsz : {7U, 8U, 64U})
            ask.words("status", group, VFIO_GROUP_GET_STATUS, {argsz, 9, 9});
        ask.set_container(group, -1);
        ask.set_container(group, group);
        ask.number("unset", group, VFIO_GROUP_UNSET_CONTAINER, 0);
        ask.device_file(group, to_string(each.address));
        ask.device_file(group, "0000:ff:1f.7");
        ask.number("no name", group, VFIO_GROUP_GET_DEVICE_FD, 0);
        ask.number("unknown", group, VFIO_GET_API_VERSION + 99, 0);
        ask.set_container(group, container);
        ask.set_container(group, container);
        ask.words("status", group, VFIO_GROUP_GET_STATUS, {8, 9, 9});
        ask.close(ask.device_file(group, to_string(each.address)));
        for (const std::uint64_t type : {0, 2, 7, 8, 9, 77, VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU})
            ask.number("iommu", container, VFIO_SET_IOMMU, type);
    }
    ask_info(ask, container);
    ask_maps(ask, container, facts);
    for (std::size_t i = 0; i != groups.size(); ++i) {
        const std::string name = to_string(facts.devices[i].address);
        for (const std::string& option : {std::string("x"), std::string(" "), std::string(" x")})
            ask.close(ask.device_file(groups[i], name + option));
        const int device = ask.device_file(groups[i], name);
        const int again = ask.device_file(groups[i], name);
        ask.number("unset", groups[i], VFIO_GROUP_UNSET_CONTAINER, 0);
        ask_device(ask, device);
        ask.close(device);
        ask.number("unset", groups[i], VFIO_GROUP_UNSET_CONTAINER, 0);
        ask.close(again);
    }
    // The last group takes the IOMMU with it.
    ask.words("map", container, VFIO_IOMMU_MAP_DMA, map_words(0x1000, page));
    for (const int each : groups)
        ask.number("unset", each, VFIO_GROUP_UNSET_CONTAINER, 0);
    ask.words("map", container, VFIO_IOMMU_MAP_DMA, map_words(0x1000, page));
    // A device keeps its group and its container.
    ask.set_container(groups[0], container);
    ask.number("iommu", container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU);
    ask.words("map", container, VFIO_IOMMU_MAP_DMA, map_words(0x1000, 2 * page));
    ask.words("unmap", container, VFIO_IOMMU_UNMAP_DMA, unmap_words(0x2000, page));
    ask.words("unmap", container, VFIO_IOMMU_UNMAP_DMA, unmap_words(0x1000, page));
    const int kept = ask.device_file(groups[0], to_string(facts.devices[0].address));
    ask.close(groups[0]);
    ask.close(container);
    ask.open("group", group_file(facts.devices[0]));
    ask.words("device", kept, VFIO_DEVICE_GET_INFO, {20, 0, 0, 0, 0});
    ask.close(kept);
    ask.close(ask.open("group", group_file(facts.devices[0])));
    for (std::size_t i = 1; i < groups.size(); ++i)
        ask.close(groups[i]);
}

namespace {

/// Two containers, the groups and their devices, each open or not, and requests at random.
class RandomType1 {
  public:
    RandomType1(Asker& ask, const Facts& facts, unsigned seed)
        : ask_(ask), facts_(facts), random_(seed), groups_(facts.devices.size(), -1),
          devices_(2 * facts.devices.size(), -1) {}

    void run(unsigned steps) {
        for (unsigned step = 0; step != steps; ++step)
            once();
        for (auto* const all : {&devices_, &groups_, &containers_})
            for (const int each : *all)
                ask_.close(each);
    }

  private:
    [[nodiscard]] std::uint32_t below(std::uint32_t bound) {
        return static_cast<std::uint32_t>(random_() % bound);
    }

    template <class T>
    [[nodiscard]] T one_of(std::initializer_list<T> all) {
        return *(all.begin() + below(static_cast<std::uint32_t>(all.size())));
    }

    void once() {
        int& container = containers_[below(16) == 0 ? 1 : 0];
        const std::uint32_t which = below(static_cast<std::uint32_t>(groups_.size()));
        int& group = groups_[which];
        int& device = devices_[which + below(2) * groups_.size()];
        if (container < 0 || group < 0 || device < 0 || below(16) == 0)
            restore(container, group, device, which);
        switch (below(100)) {
        case 0:
            close(container);
            break;
        case 1:
            close(group);
            break;
        case 2:
            close(device);
            break;
        case 3:
            ask_.set_container(group, one_of({containers_[0], containers_[1], group, -1}));
            break;
        case 4:
            ask_.number("unset", group, VFIO_GROUP_UNSET_CONTAINER, 0);
            break;
        case 5:
            ask_.number("iommu", container, VFIO_SET_IOMMU, one_of<std::uint64_t>({1, 3, 3, 4}));
            break;
        case 6:
            ask_.words("status", group, VFIO_GROUP_GET_STATUS, {8, 9});
            break;
        case 7:
            ask_info(ask_, container);
            break;
        default:
            if (below(3) == 0)
                interrupt(device);
            else
                map_or_unmap(container);
        }
    }

    /// Towards a device that can be used.
    void restore(int& container, int& group, int& device, std::uint32_t which) {
        if (container < 0)
            container = ask_.open("container", "/dev/vfio/vfio");
        if (group < 0) {
            // A device's file keeps its group busy.
            for (std::size_t each = which; each < devices_.size(); each += groups_.size())
                close(devices_[each]);
            group = ask_.open("group", group_file(facts_.devices[which]));
        }
        ask_.set_container(group, container);
        ask_.number("iommu", container, VFIO_SET_IOMMU, one_of<std::uint64_t>({1, 3}));
        if (device < 0)
            device = ask_.device_file(group, to_string(facts_.devices[which].address));
    }

    void close(int& file) {
        std::printf("close\n");
        ask_.close(file);
        file = -1;
    }

    [[nodiscard]] std::uint64_t iova() {
        const IovaRange& range =
            facts_.aperture[below(static_cast<std::uint32_t>(facts_.aperture.size()))];
        const std::uint64_t start = one_of<std::uint64_t>(
            {0, 0, 0, 0, 0, 0, range.start().value(), range.last().value() + 1, -page, 0x200'0000});
        const std::uint64_t pages = start == 0 ? below(24) : std::uint64_t{below(5)} - 2;
        return start + pages * page + (below(16) == 0 ? below(page) : 0);
    }

    [[nodiscard]] std::uint64_t size() {
        if (below(16) == 0)
            return one_of<std::uint64_t>({0, 1, page / 2, -page, ~std::uint64_t{0}, 1ULL << 40});
        return std::uint64_t{below(6)} * page + (below(3) != 0 ? page : 0);
    }

    void map_or_unmap(int container) {
        const std::uint32_t argsz = below(12) == 0 ? below(64) : 32;
        const std::uint32_t flags = below(12) == 0 ? below(2) << below(32) : 1 + below(3);
        if (below(2) == 0) {
            const std::uint64_t address =
                below(16) == 0
                    ? one_of<std::uint64_t>({0x1000, -page, memory + 1, Arena::end - page})
                    : memory + std::uint64_t{below(100)} * page;
            ask_.words("map", container, VFIO_IOMMU_MAP_DMA,
                       map_words(iova(), size(), address, flags & ~4U, argsz));
            return;
        }
        std::uint32_t unmap_flags = below(12) == 0 ? below(2) << below(32) : 0;
        if (below(24) == 0)
            unmap_flags = VFIO_DMA_UNMAP_FLAG_ALL;
        const bool nothing = unmap_flags == VFIO_DMA_UNMAP_FLAG_ALL && below(4) != 0;
        ask_.words(
            "unmap", container, VFIO_IOMMU_UNMAP_DMA,
            unmap_words(nothing ? 0 : iova(), nothing ? 0 : size(), unmap_flags & ~4U, argsz));
    }

    void interrupt(int device) {
        const std::uint32_t flags = below(8) == 0
                                        ? below(128)
                                        : one_of<std::uint32_t>({1, 2, 4, 4}) |
                                              one_of<std::uint32_t>({8, 0x10, 0x20, 0x20, 0x20});
        // Linux unmasks by an eventfd, the state machine does not.
        if (flags == (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK))
            return;
        std::vector<unsigned> values;
        for (std::uint32_t count = below(4); count != 0; --count)
            values.push_back(below(8) == 0 ? below(7) : below(4));
        const auto count = static_cast<std::uint32_t>(values.size());
        set_interrupts(ask_, descriptors_, device, flags,
                       one_of<std::uint32_t>({0, 1, 2, 2, 3, 4, 5}), below(6) == 0 ? below(5) : 0,
                       below(8) == 0 ? below(4) : count, values, below(16) == 0 ? -1 : 0);
        descriptors_.show();
    }

    Asker& ask_;
    const Facts& facts_;
    std::mt19937 random_;
    Descriptors descriptors_ = {};
    std::vector<int> containers_ = {-1, -1};
    std::vector<int> groups_;
    std::vector<int> devices_; ///< two files of each
};

} // namespace

void ask_type1_at_random(VfioWorld& world, const Facts& facts, unsigned seed) {
    Asker ask(world);
    RandomType1(ask, facts, seed).run(3000);
}

} // namespace moat::tests
