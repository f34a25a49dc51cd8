// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The soft devices that programs can be given, and the wrongs that they can do, by name.
#pragma once

#include "machine/soft/data_phase.hpp"
#include "machine/soft/face.hpp"

#include <memory>
#include <string>
#include <string_view>

namespace moat::run {

struct DeviceChoice;
struct Injection;

[[nodiscard]] bool is_device_kind(std::string_view name);
[[nodiscard]] bool is_injection(std::string_view name);
/// Whether the injection makes an access to memory wrong.
[[nodiscard]] bool is_wrong_access(std::string_view injection);

/// "edu, nic, nvme"
[[nodiscard]] std::string device_kinds();
[[nodiscard]] std::string injections();

/// A model and its face, which does wrong from the injection's first command on.
struct SoftDevice {
    std::unique_ptr<machine::soft::MovingModel> model;
    std::unique_ptr<machine::soft::Face> face;
};

/// A disk's contents lie in a file of `folder`, which the program's processes share; in memory if
/// it is empty.
[[nodiscard]] SoftDevice make_device(const DeviceChoice& choice, const Injection& injection,
                                     const std::string& folder = "");

} // namespace moat::run
