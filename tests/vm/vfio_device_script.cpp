// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The requests of a device's file: what it is made of, and its interrupts.
#include "vfio_asker.hpp"

namespace moat::tests {
namespace {

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

} // namespace

void set_interrupts(Asker& ask, const Descriptors& descriptors, int device, std::uint32_t flags,
                    std::uint32_t kind, std::uint32_t start, std::uint32_t count,
                    const std::vector<unsigned>& values, std::int64_t argsz_error) {
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

namespace {

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

void ask_device(Asker& ask, int device) {
    ask_regions(ask, device);
    ask_interrupts(ask, device);
}

} // namespace moat::tests
