// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The shortest driver: it compiles unchanged, and on a host without that device it explains why it
// does not run.
#include "moat/moat.hpp"

#include <gtest/gtest.h>
#include <sstream>

namespace moat::tests {
namespace {

using namespace moat::literals;

// clang-format off
// NOLINTBEGIN(bugprone-unused-return-value)
void drive(std::ostream& log) {
    auto pci = moat::Container::open({.backend = moat::Backend::vfio, .guard = 64_KiB,
                                      .on_fault = [&](const moat::Fault& f) { log << f; }}).value();
    auto nvme = pci.attach("0000:03:00.0").value();
    auto ring = pci.allocate(4096).value();
    auto rx = pci.map(ring, moat::from_device, "rx ring").value();
    nvme.bar(0).value().write64(0x28, rx.iova());
    pci.poll_faults();
    rx.sync_for_cpu();
}
// NOLINTEND(bugprone-unused-return-value)
// clang-format on

TEST(Target, runs_or_says_why_not) {
    std::ostringstream log;
    try {
        drive(log);
    } catch (const std::bad_expected_access<Error>& thrown) {
        const ErrorCode code = thrown.error().code();
        EXPECT_TRUE(code == ErrorCode::not_found || code == ErrorCode::refused ||
                    code == ErrorCode::unsupported)
            << static_cast<int>(code);
    }
}

} // namespace
} // namespace moat::tests
