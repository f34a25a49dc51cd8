// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The requests of type1 that both worlds answer: each one with right, short, long and wrong
// arguments, and many at random.
#include "machine/vfio_host/uapi.hpp"
#include "vfio_world.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <optional>
#include <random>
#include <sys/eventfd.h>
#include <unistd.h>

namespace moat::tests {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t memory = Arena::start;
/// A number that is no descriptor. Where a container must be named, the state machine has EBADFD
/// for it.
constexpr int no_file = 99'999;

/// 32-bit words of an argument.
using Words = std::vector<std::uint32_t>;

void add(Words& words, std::uint64_t value) {
    words.push_back(static_cast<std::uint32_t>(value));
    words.push_back(static_cast<std::uint32_t>(value >> 32U));
}

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

/// Puts requests to a world and prints its answers.
class Asker {
  public:
    explicit Asker(VfioWorld& world) : world_(&world) {}

    /// Return: the descriptor, or -1.
    int open(const char* what, const std::string& path) { return file(what, world_->open(path)); }

    void close(int descriptor) {
        if (descriptor >= 0)
            world_->close(descriptor);
    }

    std::int64_t number(const char* what, int descriptor, unsigned long request,
                        std::uint64_t argument) {
        const std::int64_t result = world_->ioctl(descriptor, request, argument);
        std::printf("%s(%#lx, %#llx) = %lld\n", what, request & 0xffU,
                    static_cast<unsigned long long>(argument), static_cast<long long>(result));
        return result;
    }

    /// Return: the words as the world left them. At most `reach` bytes of them are in memory.
    Words words(const char* what, int descriptor, unsigned long request, Words words,
                std::size_t reach = ~std::size_t{0}) {
        const std::size_t bytes = words.size() * sizeof words[0];
        const std::uint64_t at =
            reach < bytes ? Arena::end - reach : Arena::end - Arena::argument_bytes;
        const std::size_t there = Arena::reach(at, bytes);
        std::memcpy(reinterpret_cast<void*>(at), words.data(), there);
        const std::int64_t result = world_->ioctl(descriptor, request, at);
        std::printf("%s(%#lx:", what, request & 0xffU);
        for (std::size_t i = 0; i != words.size() && i != most_shown; ++i)
            std::printf(" %x", words[i]);
        std::printf(") = %lld", static_cast<long long>(result));
        std::vector<std::uint32_t> after(words);
        std::memcpy(after.data(), reinterpret_cast<void*>(at), there);
        for (std::size_t i = 0; i != words.size(); ++i)
            if (after[i] != words[i])
                std::printf(" [%zu]=%x", i, after[i]);
        std::printf("\n");
        return after;
    }

    int device_file(int group, const std::string& name) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        std::memcpy(reinterpret_cast<void*>(at), name.c_str(), name.size() + 1);
        return file(
            ("device file " + name.substr(0, 5) + "*" + (name.size() > 12 ? name.substr(12) : ""))
                .c_str(),
            world_->ioctl(group, VFIO_GROUP_GET_DEVICE_FD, at));
    }

    int set_container(int group, int container) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        std::memcpy(reinterpret_cast<void*>(at), &container, sizeof container);
        const std::int64_t result = world_->ioctl(group, VFIO_GROUP_SET_CONTAINER, at);
        std::printf("set container = %lld\n", static_cast<long long>(result));
        return static_cast<int>(result);
    }

    /// The information of a container's IOMMU, without the capability of migration, which
    /// the state machine lacks.
    void info(int container) {
        words("info", container, VFIO_IOMMU_GET_INFO, {15, 9, 9, 9, 9, 9});
        for (const std::uint32_t argsz : {16U, 20U, 24U}) {
            const std::uint64_t at = Arena::end - Arena::argument_bytes;
            const std::array<std::uint32_t, 6> head = {argsz, 9, 9, 9, 9, 9};
            std::memcpy(reinterpret_cast<void*>(at), &head, sizeof head);
            const std::int64_t result = world_->ioctl(container, VFIO_IOMMU_GET_INFO, at);
            std::array<std::uint32_t, 6> after{};
            std::memcpy(&after, reinterpret_cast<void*>(at), sizeof after);
            std::printf("info(%u) = %lld %s [1]=%x [2]=%x [3]=%x [4]=%x [5]=%x\n", argsz,
                        static_cast<long long>(result), after[0] > argsz ? "grows" : "stays",
                        after[1], after[2], after[3], after[4], after[5]);
        }
        chain(container);
    }

    [[nodiscard]] VfioWorld& world() { return *world_; }

  private:
    static constexpr std::size_t most_shown = 12;

    static int file(const char* what, std::int64_t result) {
        if (result < 0)
            std::printf("%s = %lld\n", what, static_cast<long long>(result));
        else
            std::printf("%s = file\n", what);
        return result < 0 ? -1 : static_cast<int>(result);
    }

    void chain(int container) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        auto* const words = reinterpret_cast<std::uint32_t*>(at);
        std::memset(words, 0, page);
        words[0] = page;
        const std::int64_t result = world_->ioctl(container, VFIO_IOMMU_GET_INFO, at);
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

    VfioWorld* world_;
};

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

void ask_regions(Asker& ask, int device) {
    for (const std::uint32_t argsz : {0U, 15U, 16U, 20U, 24U, 100U})
        ask.words("device", device, VFIO_DEVICE_GET_INFO, {argsz, 9, 9, 9, 9, 9, 9, 9});
    for (std::uint32_t region = 0; region != 11; ++region)
        for (const std::uint32_t argsz : {31U, 32U, 40U, 64U})
            ask.words("region", device, VFIO_DEVICE_GET_REGION_INFO,
                      {argsz, 9, region, 9, 9, 9, 9, 9, 9, 9, 9, 9});
    ask.words("region", device, VFIO_DEVICE_GET_REGION_INFO, {32, 9, ~0U, 9, 9, 9, 9, 9});
    for (std::uint32_t kind = 0; kind != 7; ++kind)
        for (const std::uint32_t argsz : {15U, 16U, 64U})
            ask.words("interrupt", device, VFIO_DEVICE_GET_IRQ_INFO, {argsz, 9, kind, 9, 9});
    for (const std::uint32_t flags : {0U, 0x10000U, 0x20000U, 0x30000U, 0x40000U, 0x80000U, 2U,
                                      0x10001U, 0x20002U, 0x50001U, 0x60002U, 0x70001U})
        ask.words("feature", device, VFIO_DEVICE_FEATURE, {64, flags, 0, 0, 0, 0});
    ask.words("feature", device, VFIO_DEVICE_FEATURE, {7, 0x40001, 0, 0, 0, 0});
    for (const std::uint32_t argsz : {0U, 11U, 12U, 64U})
        ask.words("hot reset info", device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
                  {argsz, 9, 9, 9, 9, 9, 9, 9});
    ask.words("hot reset", device, VFIO_DEVICE_PCI_HOT_RESET, {11, 0, 0, 0});
    ask.words("hot reset", device, VFIO_DEVICE_PCI_HOT_RESET, {16, 1, 0, 0});
    ask.words("hot reset", device, VFIO_DEVICE_PCI_HOT_RESET, {16, 0, 1, 0});
    ask.number("reset", device, VFIO_DEVICE_RESET, 0);
    ask.number("unknown", device, VFIO_DEVICE_QUERY_GFX_PLANE + 30, 0);
    ask.number("null", device, VFIO_DEVICE_GET_INFO, 0);
}

/// The eventfds of a device's interrupts, and descriptors that are none.
class Descriptors {
  public:
    Descriptors() {
        for (int& each : eventfds_)
            each = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }

    Descriptors(const Descriptors&) = delete;
    Descriptors& operator=(const Descriptors&) = delete;

    ~Descriptors() {
        for (const int each : eventfds_)
            ::close(each);
    }

    /// 0 to 3: an eventfd; 4: none; 5: no descriptor; 6: another file.
    [[nodiscard]] std::uint32_t operator[](unsigned index) const {
        const int descriptor = index < eventfds_.size() ? eventfds_[index]
                               : index == 4             ? -1
                               : index == 5             ? no_file
                                                        : STDERR_FILENO;
        return static_cast<std::uint32_t>(descriptor);
    }

    /// Prints how often each was signalled.
    void show() const {
        std::printf("signals");
        for (const int each : eventfds_) {
            eventfd_t count = 0;
            (void)::eventfd_read(each, &count);
            std::printf(" %llu", static_cast<unsigned long long>(count));
        }
        std::printf("\n");
    }

  private:
    std::array<int, 4> eventfds_{};
};

/// VFIO_DEVICE_SET_IRQS; `values`: indices of Descriptors, or booleans. The answer's line has no
/// descriptor.
void set_interrupts(Asker& ask, const Descriptors& descriptors, int device, std::uint32_t flags,
                    std::uint32_t kind, std::uint32_t start, std::uint32_t count,
                    const std::vector<unsigned>& values, std::int64_t argsz_error = 0) {
    const bool eventfds = (flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0;
    const std::size_t value_bytes = eventfds ? 4 : (flags & VFIO_IRQ_SET_DATA_BOOL) != 0 ? 1 : 0;
    const auto argsz = static_cast<std::uint32_t>(
        static_cast<std::int64_t>(20 + value_bytes * values.size()) + argsz_error);
    const std::uint64_t at = Arena::end - Arena::argument_bytes;
    const std::array<std::uint32_t, 5> head = {argsz, flags, kind, start, count};
    std::memset(reinterpret_cast<void*>(at), 0, 4096);
    std::memcpy(reinterpret_cast<void*>(at), &head, sizeof head);
    std::printf("interrupts(%x %x %x %x %x:", argsz, flags, kind, start, count);
    for (std::size_t i = 0; i != values.size(); ++i) {
        const std::uint32_t value = eventfds ? descriptors[values[i]] : values[i];
        std::memcpy(reinterpret_cast<void*>(at + 20 + i * value_bytes), &value, value_bytes);
        std::printf(" %u", values[i]);
    }
    const std::int64_t result = ask.world().ioctl(device, VFIO_DEVICE_SET_IRQS, at);
    std::printf(") = %lld\n", static_cast<long long>(result));
}

void ask_interrupts(Asker& ask, int device) {
    const Descriptors descriptors;
    const auto set = [&](std::uint32_t flags, std::uint32_t kind, std::uint32_t start,
                         std::uint32_t count, const std::vector<unsigned>& values,
                         std::int64_t argsz_error = 0) {
        set_interrupts(ask, descriptors, device, flags, kind, start, count, values, argsz_error);
    };
    constexpr std::uint32_t none = 1, boolean = 2, eventfd = 4, mask = 8, unmask = 0x10,
                            trigger = 0x20;
    for (std::uint32_t kind = 0; kind != 6; ++kind) {
        for (const std::uint32_t flags :
             {0U, none, trigger, none | boolean | trigger, 0x41U, none | mask | trigger,
              none | trigger, none | mask, none | unmask, boolean | trigger, boolean | mask})
            for (const std::uint32_t count : {0U, 1U, 2U})
                set(flags, kind, 0, count, {1, 1});
        set(none | trigger, kind, 4000, 1, {});
        set(none | trigger, kind, 1, ~0U, {});
        set(none | trigger, kind, 0, 1, {}, -1);
        set(eventfd | trigger, kind, 0, 1, {0}, -1);
        set(eventfd | trigger, kind, 0, 1, {5});
        set(eventfd | trigger, kind, 0, 1, {6});
        set(eventfd | trigger, kind, 0, 0, {});
        set(eventfd | trigger, kind, 0, 1, {4});
        set(none | trigger, kind, 0, 1, {});
        set(eventfd | trigger, kind, 0, 1, {0});
        set(none | trigger, kind, 0, 1, {});
        set(boolean | trigger, kind, 0, 1, {1});
        set(boolean | trigger, kind, 0, 1, {0});
        descriptors.show();
        set(none | mask, kind, 0, 1, {});
        set(none | unmask, kind, 0, 1, {});
        set(boolean | unmask, kind, 0, 1, {0});
        set(eventfd | trigger, kind, 0, 3, {1, 2, 3});
        set(eventfd | trigger, kind, 0, 3, {1, 5, 3});
        set(none | trigger, kind, 0, 3, {});
        descriptors.show();
        // Another kind while this one is on.
        set(eventfd | trigger, kind == 2 ? 0 : 2, 0, 1, {0});
        set(none | trigger, kind, 0, 0, {});
        set(none | trigger, 2, 0, 0, {});
        set(none | trigger, 0, 0, 0, {});
    }
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
    ask.info(container);
    ask_maps(ask, container, facts);
    for (std::size_t i = 0; i != groups.size(); ++i) {
        const std::string name = to_string(facts.devices[i].address);
        for (const std::string& option : {std::string("x"), std::string(" "), std::string(" x")})
            ask.close(ask.device_file(groups[i], name + option));
        const int device = ask.device_file(groups[i], name);
        const int again = ask.device_file(groups[i], name);
        ask.number("unset", groups[i], VFIO_GROUP_UNSET_CONTAINER, 0);
        ask_regions(ask, device);
        ask_interrupts(ask, device);
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
            ask_.info(container);
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
