// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/drivers.hpp"

#include <array>

namespace moat::audit {

Result<std::unique_ptr<Driver>> probe(machine::Machine& machine, machine::Function& function,
                                      BufferSource& buffers) {
    constexpr std::array<Probe, 5> drivers = {probe_edu, probe_nvme, probe_virtio_blk, probe_ahci,
                                              probe_e1000e};
    for (const Probe each : drivers)
        if (auto driver = each(machine, function, buffers);
            driver || driver.error().code() != ErrorCode::unsupported)
            return driver;
    return fail(ErrorCode::unsupported, "no driver supports the function",
                {"vendor", function.info().vendor}, {"device", function.info().device});
}

} // namespace moat::audit
