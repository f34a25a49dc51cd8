// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/driver.hpp"

#include <algorithm>
#include <array>

namespace moat::audit {

namespace {

/// A kind of device: all of a class, or one ID.
struct DeviceKind {
    std::uint32_t class_code = 0; ///< 0: decided by the ID
    std::uint16_t vendor = 0;
    std::uint16_t device = 0;
    std::string_view driver;
    Start* start;

    [[nodiscard]] bool matches(const machine::FunctionInfo& info) const {
        return class_code != 0 ? class_code == info.class_code
                               : vendor == info.vendor && device == info.device;
    }
};

constexpr std::array<DeviceKind, 16> known = {
    {{0, 0x1234, 0x11e8, "edu", start_edu},
     {0x010802, 0, 0, "nvme", start_nvme},
     {0, 0x1af4, 0x1042, "virtio-blk", start_virtio_blk},   // modern
     {0, 0x1af4, 0x1001, "virtio-blk", start_virtio_blk},   // transitional
     {0, 0x1af4, 0x1048, "virtio-scsi", start_virtio_scsi}, // modern
     {0, 0x1af4, 0x1004, "virtio-scsi", start_virtio_scsi}, // transitional
     {0, 0x15ad, 0x07c0, "pvscsi", start_pvscsi},
     {0, 0x1af4, 0x1041, "virtio-net", start_virtio_net}, // modern
     {0, 0x1af4, 0x1000, "virtio-net", start_virtio_net}, // transitional
     {0x010601, 0, 0, "ahci", start_ahci},
     {0, 0x8086, 0x100e, "e1000", start_e1000},
     {0, 0x8086, 0x10d3, "e1000e", start_e1000e},
     {0, 0x15ad, 0x07b0, "vmxnet3", start_vmxnet3},
     {0x0c0330, 0, 0, "xhci", start_xhci},
     {0x040300, 0, 0, "hda", start_hda},
     {0x080501, 0, 0, "sdhci", start_sdhci}}};

[[nodiscard]] const DeviceKind* kind_of(const machine::FunctionInfo& info) {
    const auto* const found =
        std::ranges::find_if(known, [&](const DeviceKind& each) { return each.matches(info); });
    return found == known.end() ? nullptr : found;
}

} // namespace

std::string_view driver_of(const machine::FunctionInfo& info) {
    const DeviceKind* const kind = kind_of(info);
    return kind != nullptr ? kind->driver : std::string_view();
}

Result<std::unique_ptr<Driver>> probe(const Seat& seat) {
    const machine::FunctionInfo& info = seat.function.info();
    if (const DeviceKind* const kind = kind_of(info))
        return kind->start(seat);
    return fail(ErrorCode::unsupported, "no driver supports the function", {"vendor", info.vendor},
                {"device", info.device});
}

Result<Answer> Driver::run(const Request& request) {
    MOAT_CHECK(request.operation < operations_.size(), "an operation of the driver");
    if (!operations_[request.operation].has_length(request.length))
        return fail(ErrorCode::out_of_range, "the operation has no such length",
                    {"length", request.length.value()});
    return do_run(request);
}

} // namespace moat::audit
