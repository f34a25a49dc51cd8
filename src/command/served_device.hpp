// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What `moat audit --machine vfio-user:SOCKET --list` shows: a server's device and its connection.
#pragma once

#include "machine/vfio_user/remote_device.hpp"

#include <iosfwd>
#include <string>
#include <string_view>

namespace moat::tools {

struct ServedDevice {
    std::string machine; ///< "vfio-user:SOCKET"
    machine::FunctionInfo info = {};
    machine::vfio_user::Survey survey = {};
    std::string_view driver; ///< of the audit; empty: none
};

/// Asks the server at `socket`. Errors: RemoteDevice::connect's and survey's.
[[nodiscard]] Result<ServedDevice> look_at_served_device(std::string_view socket);

void print_text(std::ostream& out, const ServedDevice& device);
void print_json(std::ostream& out, const ServedDevice& device);

} // namespace moat::tools
