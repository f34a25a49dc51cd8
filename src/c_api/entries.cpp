// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The functions of moat.h: arguments are judged here, so that nothing below meets what it takes for
// a programmer's error. The work is container.cpp's and the backends'.
#include "moat/core/range.hpp"

#include "boundary.hpp"
#include "config.hpp"
#include "container.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "report.hpp"

#include <bit>

using namespace moat;
using namespace moat::c_api;

namespace {

constexpr std::uint32_t most_tables = 1U << 20; // 4 GiB of them
constexpr std::size_t first_limits_bytes =
    offsetof(moat_limits, guard_before_bytes) + sizeof(std::uint64_t);

constexpr const char* null_container = "the container is null";
constexpr const char* null_device = "the device is null";

[[nodiscard]] Outcome outcome_of(const Result<void>& result) {
    if (!result)
        return std::unexpected(Failure(result.error()));
    return {};
}

/// Runs act(Backend&) for a container that can be used.
template <class Act>
[[nodiscard]] Outcome with(moat_container* container, Act&& act) {
    if (container == nullptr)
        return invalid(null_container);
    if (const Outcome usable = container->usable(); !usable)
        return usable;
    return act(container->backend());
}

/// A range of the caller's that is not empty and ends below 2^64.
[[nodiscard]] Outcome check_range(std::uint64_t start, std::uint64_t bytes) {
    if (bytes == 0)
        return std::unexpected(
            Failure(Error(ErrorCode::empty, "the range has no length", {"start", start})));
    if (const auto range = IovaRange::make(Iova(start), ByteCount(bytes)); !range)
        return std::unexpected(Failure(range.error()));
    return {};
}

enum class For : std::uint8_t { cpu, device };

[[nodiscard]] Outcome sync(moat_container* container, For whom, std::uint64_t iova,
                           std::uint64_t offset, std::size_t bytes) {
    return with(container, [&](Backend& backend) -> Outcome {
        if (offset > ~std::uint64_t{0} - iova)
            return std::unexpected(Failure(Error(ErrorCode::overflow, "iova + offset is past 2^64",
                                                 {"iova", iova}, {"offset", offset})));
        if (const Outcome good = check_range(iova + offset, bytes); !good)
            return good;
        const ByteCount at(offset);
        const ByteCount size(bytes);
        return outcome_of(whom == For::cpu ? backend.sync_for_cpu(Iova(iova), at, size)
                                           : backend.sync_for_device(Iova(iova), at, size));
    });
}

/// Runs act(Device&), an access, in this thread's turn. `*done` is set in any case.
template <class Act>
[[nodiscard]] Outcome access(moat_device* device, const void* memory, std::size_t bytes,
                             std::size_t* done, Act&& act) {
    if (done != nullptr)
        *done = 0;
    if (device == nullptr)
        return invalid(null_device);
    if (memory == nullptr)
        return invalid("the memory that the device reads or writes is null");
    if (const Outcome usable = device->container.usable(); !usable)
        return usable;
    if (bytes == 0)
        return std::unexpected(Failure(Error(ErrorCode::empty, "an access of no bytes")));
    if (!device->turn.take())
        return busy("another thread is using the device");

    struct Leave {
        Turn& turn;

        ~Leave() { turn.leave(); }
    } const leave{device->turn};

    const Result<Access> transfer = act(*device->device);
    if (!transfer)
        return std::unexpected(Failure(transfer.error()));
    if (done != nullptr)
        *done = transfer->done;
    if (transfer->refused)
        return std::unexpected(
            Failure(Error(ErrorCode::refused, "the IOMMU refused the access from a byte on",
                          {"done", transfer->done}, {"bytes", bytes})));
    return {};
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
        if (taken.tables == 0 || taken.tables > most_tables)
            return invalid("moat_config.tables is 1 to 2^20; moat_config_init fills it in",
                           "tables", taken.tables);
        const auto options = options_of(taken);
        if (!options)
            return std::unexpected(options.error());
        auto made = std::make_unique<moat_container>(
            moat_container::Callbacks{taken.on_fault, taken.on_driver_error, taken.context},
            options->report);
        if (const Outcome opened = made->open(taken, *options); !opened)
            return opened;
        *container = made.release();
        return {};
    });
}

moat_code moat_container_close(moat_container* container, moat_error* error) {
    return enter(error, [&]() -> Outcome {
        if (container == nullptr)
            return {};
        if (const Outcome closed = container->close(); !closed)
            return closed;
        delete container;
        return {};
    });
}

moat_code moat_container_limits(moat_container* container, moat_limits* limits, moat_error* error) {
    return enter(error, [&] {
        return with(container, [&](Backend& backend) -> Outcome {
            if (limits == nullptr)
                return invalid("where the limits go is null");
            const auto found = backend.limits();
            if (!found)
                return std::unexpected(Failure(found.error()));
            const iommu::DomainLimits& domain = found->domain;
            const moat_limits all = {.size = sizeof(moat_limits),
                                     .backend = backend.number(),
                                     .page_bytes = domain.leaf_sizes & -domain.leaf_sizes,
                                     .first_iova = domain.aperture.start().value(),
                                     .last_iova = domain.aperture.last().value(),
                                     .level = static_cast<std::int32_t>(found->options.level),
                                     .unmapping =
                                         static_cast<std::int32_t>(found->options.unmapping),
                                     .guard_bytes = found->options.guard.value(),
                                     .guard_before_bytes = found->options.guard_before.value()};
            return give_struct(all, first_limits_bytes, limits, told_size(limits));
        });
    });
}

moat_code moat_device_attach(moat_container* container, const char* address, moat_device** device,
                             moat_error* error) {
    return enter(error, [&] {
        return with(container, [&](Backend&) -> Outcome {
            if (address == nullptr || device == nullptr)
                return invalid("the address, or where the device goes, is null");
            const auto bdf = machine::vfio_host::parse_bdf(address);
            if (!bdf)
                return invalid("an address of PCI is like 0000:00:03.0 or 00:03.0");
            const auto attached = container->attach(*bdf);
            if (!attached)
                return std::unexpected(attached.error());
            *device = *attached;
            return {};
        });
    });
}

moat_code moat_device_detach(moat_device* device, moat_error* error) {
    return enter(error, [&]() -> Outcome {
        if (device == nullptr)
            return invalid(null_device);
        moat_container& container = device->container;
        if (const Outcome usable = container.usable(); !usable)
            return usable;
        return container.detach(*device);
    });
}

moat_code moat_device_read(moat_device* device, std::uint64_t iova, void* into, std::size_t bytes,
                           std::size_t* done, moat_error* error) {
    return enter(error, [&] {
        return access(device, into, bytes, done, [&](Device& soft) {
            return soft.read(Iova(iova), {static_cast<std::byte*>(into), bytes});
        });
    });
}

moat_code moat_device_write(moat_device* device, std::uint64_t iova, const void* from,
                            std::size_t bytes, std::size_t* done, moat_error* error) {
    return enter(error, [&] {
        return access(device, from, bytes, done, [&](Device& soft) {
            return soft.write(Iova(iova), {static_cast<const std::byte*>(from), bytes});
        });
    });
}

moat_code moat_device_bar(moat_device* device, std::uint32_t index, void** memory,
                          std::size_t* bytes, moat_error* error) {
    return enter(error, [&]() -> Outcome {
        if (device == nullptr)
            return invalid(null_device);
        if (memory == nullptr || bytes == nullptr)
            return invalid("where the BAR's place or size goes is null");
        if (const Outcome usable = device->container.usable(); !usable)
            return usable;
        const auto found = device->device->bar(index);
        if (!found)
            return std::unexpected(Failure(found.error()));
        *memory = found->data();
        *bytes = found->size();
        return {};
    });
}

moat_code moat_map(moat_container* container, void* memory, std::size_t bytes,
                   std::int32_t direction, const char* label, std::uint64_t* iova,
                   moat_error* error) {
    return enter(error, [&] {
        return with(container, [&](Backend& backend) -> Outcome {
            if (memory == nullptr || iova == nullptr)
                return invalid("the memory, or where the device address goes, is null");
            const auto way = direction_of(direction);
            if (!way)
                return std::unexpected(way.error());
            if (const Outcome good = check_range(reinterpret_cast<std::uintptr_t>(memory), bytes);
                !good)
                return good;
            const auto whole = dma::Memory::own({static_cast<std::byte*>(memory), bytes});
            const Result<Iova> mapped = backend.map(whole, *way, container->keep_label(label));
            if (!mapped)
                return std::unexpected(Failure(mapped.error()));
            *iova = mapped->value();
            return {};
        });
    });
}

moat_code moat_unmap(moat_container* container, std::uint64_t iova, std::size_t bytes,
                     std::int32_t direction, moat_error* error) {
    return enter(error, [&] {
        return with(container, [&](Backend& backend) -> Outcome {
            const auto way = direction_of(direction);
            if (!way)
                return std::unexpected(way.error());
            if (const Outcome good = check_range(iova, bytes); !good)
                return good;
            return outcome_of(backend.unmap(Iova(iova), ByteCount(bytes), *way));
        });
    });
}

moat_code moat_sync_for_device(moat_container* container, std::uint64_t iova, std::uint64_t offset,
                               std::size_t bytes, moat_error* error) {
    return enter(error, [&] { return sync(container, For::device, iova, offset, bytes); });
}

moat_code moat_sync_for_cpu(moat_container* container, std::uint64_t iova, std::uint64_t offset,
                            std::size_t bytes, moat_error* error) {
    return enter(error, [&] { return sync(container, For::cpu, iova, offset, bytes); });
}

moat_code moat_flush(moat_container* container, moat_error* error) {
    return enter(error, [&] {
        return with(container, [](Backend& backend) { return outcome_of(backend.flush()); });
    });
}

moat_code moat_poll_faults(moat_container* container, std::uint64_t* told, std::uint64_t* lost,
                           moat_error* error) {
    return enter(error, [&] {
        return with(container, [&](Backend& backend) -> Outcome {
            const auto polled = backend.poll();
            if (!polled)
                return std::unexpected(Failure(polled.error()));
            if (told != nullptr)
                *told = polled->told;
            if (lost != nullptr)
                *lost = polled->lost;
            return {};
        });
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
