// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/device_kinds.hpp"

#include "machine/soft/edu.hpp"
#include "machine/soft/nic.hpp"
#include "machine/soft/nvme.hpp"
#include "platform/file_descriptor.hpp"
#include "run/options.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <fcntl.h>
#include <optional>
#include <unistd.h>

namespace moat::run {

namespace {

using machine::soft::Malfunction;
using machine::soft::Misdeed;

constexpr std::array<std::string_view, 3> kinds = {"edu", "nic", "nvme"};

constexpr std::array misdeeds = {Misdeed::none,
                                 Misdeed::overrun,
                                 Misdeed::underrun,
                                 Misdeed::write_after_completion,
                                 Misdeed::stale_address,
                                 Misdeed::read_only_violated,
                                 Misdeed::wrong_length,
                                 Misdeed::wrong_status,
                                 Misdeed::truncated_address,
                                 Misdeed::data_mixed_up};

constexpr std::array malfunctions = {Malfunction::lost_interrupt, Malfunction::hang,
                                     Malfunction::removed, Malfunction::all_ones};

/// The one of `all` that is called `wanted`.
template <class Wrongs>
[[nodiscard]] auto named(const Wrongs& all, std::string_view wanted) {
    const auto found = std::ranges::find(all, wanted, [](auto each) { return name(each); });
    return found == all.end() ? std::nullopt : std::optional(*found);
}

/// When a late write comes: after most programs have unmapped a buffer that they map for each
/// command, and before they map much else.
constexpr std::chrono::microseconds late_time{200};

void append(std::string& list, std::string_view name) {
    list += (list.empty() ? "" : ", ") + std::string(name);
}

/// A sparse file; -1 if it cannot be made.
[[nodiscard]] platform::FileDescriptor medium_in(const std::string& folder,
                                                 const DeviceChoice& choice, ByteCount capacity) {
    if (folder.empty())
        return {};
    const std::string path = folder + "/disk-" + machine::to_string(choice.address);
    platform::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (file.get() < 0 || ::ftruncate(file.get(), static_cast<off_t>(capacity.value())) != 0)
        return {};
    return file;
}

[[nodiscard]] std::unique_ptr<machine::soft::MovingModel> make_disk(const DeviceChoice& choice,
                                                                    const std::string& folder) {
    constexpr ByteCount usual_capacity(std::uint64_t{64} << 20);
    const ByteCount capacity = choice.capacity.value() == 0 ? usual_capacity : choice.capacity;
    const platform::FileDescriptor medium = medium_in(folder, choice, capacity);
    return std::make_unique<machine::soft::Nvme>(machine::soft::NvmeOptions{
        .capacity = capacity, .serial_number = choice.address.requester(), .medium = medium.get()});
}

/// Programs with several cards tell them apart by their addresses.
[[nodiscard]] machine::soft::Nic::MacAddress mac_of(const DeviceChoice& choice) {
    const std::uint16_t number = choice.address.requester();
    constexpr std::uint8_t locally_administered = 2;
    return {locally_administered,
            0,
            0,
            0,
            static_cast<std::uint8_t>(number >> 8),
            static_cast<std::uint8_t>(number & 0xff)};
}

} // namespace

bool is_device_kind(std::string_view name) {
    return std::ranges::find(kinds, name) != kinds.end();
}

bool is_injection(std::string_view name) {
    return named(misdeeds, name) || named(malfunctions, name);
}

bool is_wrong_access(std::string_view injection) {
    const auto misdeed = named(misdeeds, injection);
    return misdeed && *misdeed != Misdeed::none && *misdeed != Misdeed::wrong_status;
}

std::string device_kinds() {
    std::string list;
    for (const std::string_view each : kinds)
        append(list, each);
    return list;
}

std::string injections() {
    std::string list;
    for (const Misdeed each : misdeeds)
        append(list, name(each));
    for (const Malfunction each : malfunctions)
        append(list, name(each));
    return list;
}

SoftDevice make_device(const DeviceChoice& choice, const Injection& injection,
                       const std::string& folder) {
    SoftDevice device;
    if (choice.kind == "edu")
        device.model = std::make_unique<machine::soft::Edu>();
    else if (choice.kind == "nic")
        device.model = std::make_unique<machine::soft::Nic>(mac_of(choice));
    else
        device.model = make_disk(choice, folder);
    device.face = std::make_unique<machine::soft::Face>(choice.address, *device.model);
    machine::soft::Occasions when{.after = injection.after, .seed = injection.seed};
    if (when.seed)
        *when.seed ^= choice.address.requester(); // or equal devices would go wrong together
    if (const auto misdeed = named(misdeeds, injection.name))
        device.model->misbehave(
            {.misdeed = *misdeed, .bytes = injection.bytes, .when = when, .delay = late_time});
    if (const auto malfunction = named(malfunctions, injection.name))
        device.face->inject(*malfunction, when);
    return device;
}

} // namespace moat::run
