// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A QEMU machine for a test, or the reason to skip it; and the state that the tests inspect.
#pragma once

#include "moat/core/text.hpp"

#include "machine/qemu/qemu_machine.hpp"

#include <algorithm>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace moat::tests {

/// Skips if QEMU is not installed; any other failure to start is the test's.
class QemuTest : public ::testing::Test {
  protected:
    void start(const machine::qemu::QemuOptions& options) {
        std::string words;
        machine::qemu::QemuOptions told = options;
        told.words = &words;
        auto started = machine::qemu::QemuMachine::start(told);
        if (!started && started.error().code() == ErrorCode::not_found)
            GTEST_SKIP() << "SKIPPED: " << machine::qemu::board_of(options.iommu).program
                         << " is not installed";
        ASSERT_TRUE(started) << started.error() << '\n' << words;
        machine = std::move(*started);
    }

    /// The first function of this vendor and device.
    [[nodiscard]] machine::Bdf find(std::uint16_t vendor, std::uint16_t device) const {
        for (const machine::FunctionInfo& each : machine->functions())
            if (each.vendor == vendor && each.device == device)
                return each.address;
        ADD_FAILURE() << "the device is there";
        return {};
    }

    [[nodiscard]] std::vector<fault::Record> faults() const {
        std::vector<fault::Record> records;
        auto keep = [&](const fault::Record& record) { records.push_back(record); };
        EXPECT_TRUE(machine->take_faults(keep));
        return records;
    }

    std::unique_ptr<machine::qemu::QemuMachine> machine;
};

} // namespace moat::tests
