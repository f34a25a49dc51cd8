// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The functions of moat.h over those of moat.hpp: pointers, numbers and structs are checked here.
#include "moat/dma/options.hpp"

#include "boundary.hpp"
#include "config.hpp"
#include "container.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "report.hpp"

#include <limits>
#include <optional>
#include <vector>

using namespace moat;
using namespace moat::api::c;

namespace {

constexpr std::size_t first_limits_bytes =
    offsetof(moat_limits, guard_before_bytes) + sizeof(std::uint64_t);
constexpr std::size_t first_segment_limits_bytes =
    offsetof(moat_segment_limits, guard_bytes) + sizeof(std::uint64_t);

/// The outcome of a call of moat.hpp.
template <class Value>
[[nodiscard]] Outcome outcome_of(const Result<Value>& result) {
    if (!result)
        return std::unexpected(Failure(result.error()));
    return {};
}

/// Runs act(Container&) as a function of moat.h.
template <class Act>
[[nodiscard]] moat_code with(moat_container* container, moat_error* error, Act&& act) {
    return enter(error, [&]() -> Outcome {
        if (container == nullptr)
            return invalid("the container is null");
        return act(container->container());
    });
}

template <class Act>
[[nodiscard]] moat_code with(moat_device* device, moat_error* error, Act&& act) {
    return enter(error, [&]() -> Outcome {
        if (device == nullptr)
            return invalid("the device is null");
        return act(device->device);
    });
}

/// Runs act(Container&, Direction), where `direction` is one.
template <class Act>
[[nodiscard]] moat_code with(moat_container* container, std::int32_t direction, moat_error* error,
                             Act&& act) {
    return with(container, error, [&](Container& opened) -> Outcome {
        MOAT_LET(const auto way, direction_of(direction));
        return act(opened, way);
    });
}

/// Runs act(Device&), an access. `*done` is set in any case.
template <class Act>
[[nodiscard]] moat_code access(moat_device* device, const void* memory, std::size_t bytes,
                               std::size_t* done, moat_error* error, Act&& act) {
    if (done != nullptr)
        *done = 0;
    return with(device, error, [&](Device& soft) -> Outcome {
        if (memory == nullptr)
            return invalid("the memory that the device reads or writes is null");
        const Result<void> transfer = act(soft);
        const std::uint64_t* const before = transfer ? &bytes : transfer.error().find("done");
        if (done != nullptr && before != nullptr)
            *done = *before;
        return outcome_of(transfer);
    });
}

[[nodiscard]] std::string_view label_of(const char* label) {
    return label != nullptr ? label : std::string_view();
}

/// Null: no limits.
[[nodiscard]] std::expected<SegmentLimits, Failure> limits_of(const moat_segment_limits* given) {
    if (given == nullptr)
        return SegmentLimits{};
    moat_segment_limits taken = MOAT_SEGMENT_LIMITS_INIT;
    if (const Outcome known = take_struct(given, first_segment_limits_bytes, taken); !known)
        return std::unexpected(known.error());
    return SegmentLimits{.longest = ByteCount(taken.longest_bytes),
                         .boundary = ByteCount(taken.boundary_bytes),
                         .guard = ByteCount(taken.guard_bytes)};
}

template <class Write>
[[nodiscard]] moat_code write_report(const moat_report* report, char* buffer, std::size_t room,
                                     std::size_t* needed, moat_error* error, Write&& write) {
    return enter(error, [&]() -> Outcome {
        if (report == nullptr)
            return invalid("the report is null");
        if (buffer == nullptr && room != 0)
            return invalid("the buffer is null, and its room is not 0");
        const std::string text = write(*report);
        if (room != 0)
            buffer[text.copy(buffer, room - 1)] = '\0';
        if (needed != nullptr)
            *needed = text.size() + 1;
        return {};
    });
}

} // namespace

std::uint32_t moat_abi_version(void) {
    return MOAT_ABI_VERSION;
}

const char* moat_version(void) {
    return MOAT_VERSION; // of CMakeLists.txt
}

const char* moat_code_name(moat_code code) {
    if (code == MOAT_OK)
        return "ok";
    if (code >= MOAT_EMPTY && code <= MOAT_IO)
        return name(static_cast<ErrorCode>(code - 1)).data();
    if (code == MOAT_INVALID)
        return "invalid argument";
    return code == MOAT_INTERNAL ? "internal error" : "no such code";
}

const char* moat_fault_kind_name(std::int32_t kind) {
    return kind >= MOAT_FAULT_OVERFLOW && kind <= MOAT_FAULT_NO_ACCESS
               ? name(static_cast<fault::Kind>(kind)).data()
               : "no such kind";
}

const char* moat_options_help(void) {
    return dma::options_help().data();
}

moat_code moat_config_init(moat_config* config, std::size_t size) {
    return enter(nullptr, [&]() -> Outcome {
        if (config == nullptr)
            return invalid("the config is null");
        if (size > ~std::uint32_t{0})
            return invalid("a struct's size has 32 bits", "size", size);
        return give_struct(usual_config(), first_config_bytes, config, size);
    });
}

moat_code moat_container_open(const moat_config* config, moat_container** container,
                              moat_error* error) {
    return enter(error, [&]() -> Outcome {
        if (config == nullptr || container == nullptr)
            return invalid("the config, or where the container goes, is null");
        moat_config taken = usual_config();
        if (const Outcome known = take_struct(config, first_config_bytes, taken); !known)
            return known;
        MOAT_LET(auto wanted, config_for_cpp(taken));
        auto made = std::make_unique<moat_container>(
            moat_container::Callbacks{taken.on_fault, taken.on_driver_error, taken.context});
        if (const Outcome opened = made->open(std::move(wanted)); !opened)
            return opened;
        *container = made.release();
        return {};
    });
}

moat_code moat_container_close(moat_container* container, moat_error* error) {
    return enter(error, [&]() -> Outcome {
        if (container == nullptr)
            return {};
        if (const auto closed = container->container().close(); !closed)
            return outcome_of(closed);
        delete container;
        return {};
    });
}

moat_code moat_container_limits(moat_container* container, moat_limits* limits, moat_error* error) {
    return with(container, error, [&](Container& opened) -> Outcome {
        if (limits == nullptr)
            return invalid("where the limits go is null");
        const auto found = opened.limits();
        if (!found)
            return outcome_of(found);
        const moat_limits all = {.size = sizeof(moat_limits),
                                 .backend = static_cast<std::int32_t>(found->backend),
                                 .page_bytes = found->page_bytes,
                                 .first_iova = found->first_iova,
                                 .last_iova = found->last_iova,
                                 .level = static_cast<std::int32_t>(found->level),
                                 .unmapping = static_cast<std::int32_t>(found->unmapping),
                                 .guard_bytes = found->guard.value(),
                                 .guard_before_bytes = found->guard_before.value()};
        return give_struct(all, first_limits_bytes, limits, told_size(limits));
    });
}

moat_code moat_device_attach(moat_container* container, const char* address, moat_device** device,
                             moat_error* error) {
    return with(container, error, [&](Container&) -> Outcome {
        if (address == nullptr || device == nullptr)
            return invalid("the address, or where the device goes, is null");
        const auto parsed = machine::vfio_host::parse_bdf(address);
        if (!parsed)
            return invalid("an address of PCI is like 0000:00:03.0 or 00:03.0");
        MOAT_LET(const auto attached, container->attach(address, *parsed));
        *device = attached;
        return {};
    });
}

moat_code moat_device_detach(moat_device* device, moat_error* error) {
    return with(device, error, [&](Device&) { return device->owner.detach(*device); });
}

moat_code moat_device_read(moat_device* device, std::uint64_t iova, void* into, std::size_t bytes,
                           std::size_t* done, moat_error* error) {
    return access(device, into, bytes, done, error, [&](Device& soft) {
        return soft.read(iova, {static_cast<std::byte*>(into), bytes});
    });
}

moat_code moat_device_write(moat_device* device, std::uint64_t iova, const void* from,
                            std::size_t bytes, std::size_t* done, moat_error* error) {
    return access(device, from, bytes, done, error, [&](Device& soft) {
        return soft.write(iova, {static_cast<const std::byte*>(from), bytes});
    });
}

moat_code moat_device_bar(moat_device* device, std::uint32_t index, void** memory,
                          std::size_t* bytes, moat_error* error) {
    return with(device, error, [&](Device& attached) -> Outcome {
        if (memory == nullptr || bytes == nullptr)
            return invalid("where the BAR's place or size goes is null");
        const auto bar = attached.bar(index);
        if (!bar)
            return outcome_of(bar);
        const auto found = bar->memory();
        if (!found)
            return outcome_of(found);
        *memory = found->data();
        *bytes = found->size();
        return {};
    });
}

moat_code moat_device_enable_interrupts(moat_device* device, std::uint32_t wanted,
                                        std::uint32_t* enabled, moat_error* error) {
    return with(device, error, [&](Device& attached) -> Outcome {
        if (enabled == nullptr)
            return invalid("where the number of vectors goes is null");
        const auto vectors = attached.enable_interrupts(wanted);
        if (vectors)
            *enabled = *vectors;
        return outcome_of(vectors);
    });
}

moat_code moat_device_wait_for_interrupt(moat_device* device, std::uint32_t vector,
                                         std::uint32_t longest_ms, std::int32_t* raised,
                                         moat_error* error) {
    return with(device, error, [&](Device& attached) -> Outcome {
        if (raised == nullptr)
            return invalid("where the answer goes is null");
        const auto taken = attached.wait_for_interrupt(vector, longest_ms);
        if (taken)
            *raised = *taken ? 1 : 0;
        return outcome_of(taken);
    });
}

moat_code moat_device_raise_interrupt(moat_device* device, std::uint32_t vector,
                                      moat_error* error) {
    return with(device, error,
                [&](Device& soft) { return outcome_of(soft.raise_interrupt(vector)); });
}

moat_code moat_map(moat_container* container, void* memory, std::size_t bytes,
                   std::int32_t direction, const char* label, std::uint64_t* iova,
                   moat_error* error) {
    return with(container, direction, error, [&](Container& opened, Direction way) -> Outcome {
        if (memory == nullptr || iova == nullptr)
            return invalid("the memory, or where the device address goes, is null");
        auto mapped =
            opened.map(std::span(static_cast<std::byte*>(memory), bytes), way, label_of(label));
        if (mapped)
            *iova = mapped->release();
        return outcome_of(mapped);
    });
}

moat_code moat_map_list(moat_container* container, const moat_piece* pieces, std::size_t count,
                        std::int32_t direction, const moat_segment_limits* limits,
                        const char* label, moat_segment* segments, std::size_t* segment_count,
                        std::uint64_t* iova, std::uint64_t* bytes, moat_error* error) {
    return with(container, direction, error, [&](Container& opened, Direction way) -> Outcome {
        if (pieces == nullptr || segments == nullptr || segment_count == nullptr ||
            iova == nullptr || bytes == nullptr)
            return invalid("the pieces, or where the list's segments, number of segments, address "
                           "or size goes, are null");
        MOAT_LET(const auto allowed, limits_of(limits));
        std::vector<Memory> memory;
        for (std::size_t i = 0; i != count; ++i)
            memory.emplace_back(
                std::span(static_cast<std::byte*>(pieces[i].memory), pieces[i].bytes));
        auto mapped = opened.map_list(memory, way, allowed, label_of(label));
        if (!mapped)
            return outcome_of(mapped);
        *segment_count = mapped->segments().size();
        for (const Segment& each : mapped->segments())
            *segments++ = {each.iova.value(), each.size.value()};
        *bytes = mapped->size();
        *iova = mapped->release();
        return {};
    });
}

moat_code moat_unmap(moat_container* container, std::uint64_t iova, std::size_t bytes,
                     std::int32_t direction, moat_error* error) {
    return with(container, direction, error, [&](Container& opened, Direction way) -> Outcome {
        return outcome_of(opened.unmap(iova, bytes, way));
    });
}

moat_code moat_map_region(moat_container* container, moat_device* peer, std::uint32_t bar,
                          std::uint64_t offset, std::uint64_t bytes, std::int32_t direction,
                          const char* label, std::uint64_t* iova, moat_error* error) {
    return with(container, direction, error, [&](Container& opened, Direction way) -> Outcome {
        if (peer == nullptr || iova == nullptr)
            return invalid("the device whose BAR it is, or where the address goes, is null");
        const auto registers = peer->device.bar(bar);
        if (!registers)
            return outcome_of(registers);
        auto mapped = opened.map_region(*registers, offset, bytes, way, label_of(label));
        if (mapped)
            *iova = mapped->release();
        return outcome_of(mapped);
    });
}

moat_code moat_allocate_coherent(moat_container* container, std::size_t bytes, const char* label,
                                 void** memory, std::uint64_t* iova, moat_error* error) {
    return with(container, error, [&](Container&) -> Outcome {
        if (memory == nullptr || iova == nullptr)
            return invalid("where the memory, or its device address, goes is null");
        const auto made = container->allocate_coherent(bytes, label_of(label));
        if (!made)
            return outcome_of(made);
        *memory = (*made)->bytes().data();
        *iova = (*made)->iova();
        return {};
    });
}

moat_code moat_free_coherent(moat_container* container, std::uint64_t iova, moat_error* error) {
    return with(container, error,
                [&](Container&) { return outcome_of(container->free_coherent(iova)); });
}

moat_code moat_sync_for_device(moat_container* container, std::uint64_t iova, std::uint64_t offset,
                               std::size_t bytes, moat_error* error) {
    return with(container, error, [&](Container& opened) {
        return outcome_of(opened.sync_for_device(iova, offset, bytes));
    });
}

moat_code moat_sync_for_cpu(moat_container* container, std::uint64_t iova, std::uint64_t offset,
                            std::size_t bytes, moat_error* error) {
    return with(container, error, [&](Container& opened) {
        return outcome_of(opened.sync_for_cpu(iova, offset, bytes));
    });
}

moat_code moat_poison(moat_container* container, std::uint64_t iova, std::uint64_t bytes,
                      moat_error* error) {
    return with(container, error,
                [&](Container& opened) { return outcome_of(opened.poison(iova, bytes)); });
}

moat_code moat_unpoison(moat_container* container, std::uint64_t iova, std::uint64_t bytes,
                        moat_error* error) {
    return with(container, error,
                [&](Container& opened) { return outcome_of(opened.unpoison(iova, bytes)); });
}

moat_code moat_flush(moat_container* container, moat_error* error) {
    return with(container, error, [](Container& opened) { return outcome_of(opened.flush()); });
}

moat_code moat_poll_faults(moat_container* container, std::uint64_t* told, std::uint64_t* lost,
                           moat_error* error) {
    return with(container, error, [&](Container& opened) -> Outcome {
        const auto polled = opened.poll_faults();
        if (!polled)
            return outcome_of(polled);
        if (told != nullptr)
            *told = polled->reported;
        if (lost != nullptr)
            *lost = polled->lost;
        return {};
    });
}

moat_code moat_report_text(const moat_report* report, char* buffer, std::size_t room,
                           std::size_t* needed, moat_error* error) {
    return write_report(report, buffer, room, needed, error, as_text);
}

moat_code moat_report_json(const moat_report* report, char* buffer, std::size_t room,
                           std::size_t* needed, moat_error* error) {
    return write_report(report, buffer, room, needed, error, as_json);
}
