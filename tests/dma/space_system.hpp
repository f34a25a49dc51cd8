// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A space over a software IOMMU, a device, and the reports about both.
#pragma once

#include "api/engines.hpp"
#include "iommu/soft_system.hpp"
#include "sanitized.hpp"

#include <cstdlib>
#include <functional>
#include <gtest/gtest.h>
#include <memory>
#include <vector>

namespace moat::tests {

using SoftSpace = api::SoftSpace; // instantiated once, in moat::api

/// Builds that check every step are many times slower.
#ifdef __OPTIMIZE__
inline constexpr bool slow = sanitized;
#else
inline constexpr bool slow = true;
#endif

inline constexpr fault::Source nic = fault::Source::pci(0, 3, 0, 0);

/// All reports.
struct Heard {
    std::vector<fault::Diagnosis> faults;
    std::vector<dma::DriverError> errors;
    std::function<void()> at_fault = [] {}; ///< the driver's reaction to a report

    [[nodiscard]] dma::Listener listener() {
        return {[](void* context, const fault::Diagnosis& diagnosis) noexcept {
                    static_cast<Heard*>(context)->faults.push_back(diagnosis);
                    static_cast<Heard*>(context)->at_fault();
                },
                [](void* context, const dma::DriverError& error) noexcept {
                    static_cast<Heard*>(context)->errors.push_back(error);
                },
                this};
    }
};

/// Whether the IOMMU checks bytes, or only pages as hardware does.
enum class Finest { bytes, pages };

/// A device and a space, at the level that a test chooses.
struct System {
    explicit System(const dma::Options& options, Finest finest = Finest::bytes)
        : domain(empty_table(tables), {.byte_bounds = finest == Finest::bytes}),
          space(*SoftSpace::create(domain, {.options = options,
                                            .listener = heard.listener(),
                                            .capture = nullptr,
                                            .pages = dma::own_pages()})),
          device(**iommu.add_device(
              nic, {[](void* context, const fault::Record& record) {
                        (*static_cast<std::unique_ptr<SoftSpace>*>(context))->fault(record);
                    },
                    &space})) {
        EXPECT_TRUE(iommu.attach(nic, domain));
    }

    iommu::Transfer write(std::uint64_t at, std::size_t size, int value = 1) {
        return lane.write(Iova(at), std::vector<std::byte>(size, static_cast<std::byte>(value)));
    }

    OwnTables tables;
    SoftDomain domain;
    SoftIommu iommu;
    Heard heard;
    std::unique_ptr<SoftSpace> space;
    SoftIommu::Device& device;
    Lane lane{device};
};

} // namespace moat::tests
