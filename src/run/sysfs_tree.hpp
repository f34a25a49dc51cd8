// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The files of /sys and /dev that VFIO programs read, in a folder of their own. mount_namespace.hpp
// puts them in place; without a namespace the preloaded library redirects paths.
#pragma once

#include "run/options.hpp"

#include <array>
#include <expected>
#include <string>
#include <string_view>

namespace moat::run {

/// The folders of the tree that hide the machine's own, each below FOLDER: a path that begins so
/// is looked up in the tree.
inline constexpr std::array<std::string_view, 6> tree_folders = {
    "/sys/bus/pci",     "/sys/kernel/iommu_groups",
    "/sys/module/vfio", "/sys/module/vfio_pci",
    "/dev/vfio",        "/dev/iommu"};

/// Writes the tree for `options.devices` below `options.folder`, which exists. Source: Linux,
/// Documentation/ABI/testing/sysfs-bus-pci, sysfs-kernel-iommu_groups and sysfs-devices-vfio-dev.
/// Error: what could not be written.
[[nodiscard]] std::expected<void, std::string> write_sysfs_tree(const Options& options);

} // namespace moat::run
