// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat run` passes to its preloaded library, as text in MOAT_RUN. No operating system.
#pragma once

#include "machine/pci.hpp"
#include "run/limits.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <array>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moat::run {

/// A soft device: what it is, and where the program finds it.
struct DeviceChoice {
    std::string kind;
    machine::Bdf address = {};
    ByteCount capacity = {}; ///< of a disk; 0: its usual size

    /// The number of its IOMMU group: no two devices share one.
    [[nodiscard]] unsigned group() const { return address.requester(); }
};

/// What the devices do wrong, by name: `injections()`.
struct Injection {
    std::string name = "none";
    std::uint64_t bytes = 64;
    std::uint64_t after = 0; ///< so many commands are right first
    /// A part of the commands is wrong, the same ones for an equal seed; without, all are.
    std::optional<std::uint64_t> seed = {};
};

/// Which of VFIO's interfaces the program finds.
enum class Api : std::uint8_t {
    any,
    type1,   ///< containers and groups alone
    iommufd, ///< /dev/iommu and device files alone
};

[[nodiscard]] constexpr std::string_view name(Api api) {
    constexpr std::array<std::string_view, 3> names = {"any", "type1", "iommufd"};
    return names[static_cast<std::size_t>(api)];
}

[[nodiscard]] std::optional<Api> api_named(std::string_view wanted);

struct Options {
    std::vector<DeviceChoice> devices;
    Injection inject = {};
    std::uint64_t fail_map = 0; ///< this map, counted from 1, fails; 0: none
    int fail_errno = 0;
    Limits limits = {};
    Api api = Api::any;
    std::string folder;    ///< of the command: the fake /sys and /dev, findings, the tally
    bool record = false;   ///< writes a recording to the folder
    bool redirect = false; ///< paths are redirected there: nothing is mounted over them
};

[[nodiscard]] std::string to_text(const Options& options);
/// Error: what is wrong, and where.
[[nodiscard]] std::expected<Options, std::string> parse_options(std::string_view text);

/// "nvme", "nvme@0000:05:00.0", "nvme,size=1G". The `index`-th device gets bus 5 + index unless it
/// names an address.
[[nodiscard]] std::expected<DeviceChoice, std::string> parse_device(std::string_view text,
                                                                    unsigned index);
/// "overrun", "overrun:16".
[[nodiscard]] std::expected<Injection, std::string> parse_injection(std::string_view text);

/// Files in the folder.
inline constexpr std::string_view findings_file = "findings";
inline constexpr std::string_view recording_file = "recording";

} // namespace moat::run
