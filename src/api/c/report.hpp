// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Faults and mistakes of moat.hpp as the structs of moat.h. container.cpp hands these to the
// caller's callbacks.
#pragma once

#include "moat/moat.h"
#include "moat/moat.hpp"

#include <array>
#include <optional>
#include <string>

/// One of both; borrowed for the time of a callback.
struct moat_report {
    const moat::Fault* fault = nullptr;
    const moat::DriverError* driver_error = nullptr;
};

namespace moat::api::c {

[[nodiscard]] std::string as_text(const moat_report& report);
[[nodiscard]] std::string as_json(const moat_report& report);

/// A moat_fault and all that it points to. Nothing here fails: where there is no memory for it, the
/// summary is empty.
class FaultForC {
  public:
    explicit FaultForC(const moat_report& report, moat_device* device) noexcept;
    FaultForC(const FaultForC&) = delete;
    FaultForC& operator=(const FaultForC&) = delete;

    [[nodiscard]] const moat_fault& get() const { return fault_; }

  private:
    std::array<moat_mapping, 5> mappings_{};
    std::array<char, 24> source_{};
    std::string summary_;
    moat_fault fault_{};
};

/// The same for a driver's error.
class DriverErrorForC {
  public:
    explicit DriverErrorForC(const moat_report& report) noexcept;
    DriverErrorForC(const DriverErrorForC&) = delete;
    DriverErrorForC& operator=(const DriverErrorForC&) = delete;

    [[nodiscard]] const moat_driver_error& get() const { return error_; }

  private:
    std::array<moat_mapping, 2> mappings_{};
    std::string summary_;
    moat_driver_error error_{};
};

} // namespace moat::api::c
