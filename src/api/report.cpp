// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Faults and mistakes in words: fault/'s and dma/'s, with this process's symbols.
#include "moat/fault/report.hpp"

#include "moat/moat.hpp"

#include "dma/reporter.hpp"
#include "platform/stack.hpp"

#include <ostream>

namespace moat {

namespace {

constexpr auto symbols = [](std::uintptr_t address, fault::FrameSink sink) {
    platform::symbolise(address, sink);
};

[[nodiscard]] fault::ReportOptions options_of(std::uint64_t page_bytes = 4096) {
    return {.page_bytes = page_bytes, .symbolise = symbols};
}

/// Of the living mapping, or else of the past one.
[[nodiscard]] std::string_view label_of(const fault::Mapping* living,
                                        const std::optional<fault::PastMapping>& past) {
    return living != nullptr ? living->label : past ? past->mapping.label : std::string_view();
}

} // namespace

std::string_view Fault::label() const {
    return label_of(diagnosis_.mapping ? &*diagnosis_.mapping : nullptr, diagnosis_.past);
}

std::string Fault::summary() const {
    return fault::summary(diagnosis_);
}

std::string Fault::text() const {
    return fault::text_report(diagnosis_, options_of(page_bytes_));
}

std::string Fault::json() const {
    return fault::json_report(diagnosis_, options_of(page_bytes_));
}

std::ostream& operator<<(std::ostream& out, const Fault& fault) {
    return out << fault.text();
}

std::string_view DriverError::label() const {
    return label_of(error_.mapping.range.empty() ? nullptr : &error_.mapping, error_.past);
}

std::string DriverError::summary() const {
    return dma::summary(error_);
}

std::string DriverError::text() const {
    return dma::text_report(error_, options_of());
}

std::string DriverError::json() const {
    return dma::json_report(error_);
}

std::ostream& operator<<(std::ostream& out, const DriverError& error) {
    return out << error.text();
}

} // namespace moat
