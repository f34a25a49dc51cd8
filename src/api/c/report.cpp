// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Numbers are moat.h's own, each held against the rooms' here; words are moat.hpp's.
#include "report.hpp"

#include "moat/fault/report.hpp"

#include <exception>

namespace moat::api::c {

namespace {

using fault::Kind;

static_assert(static_cast<int>(Kind::out_of_bounds_right) == MOAT_FAULT_OVERFLOW &&
              static_cast<int>(Kind::out_of_bounds_left) == MOAT_FAULT_UNDERFLOW &&
              static_cast<int>(Kind::crossing) == MOAT_FAULT_CROSSING &&
              static_cast<int>(Kind::use_after_unmap) == MOAT_FAULT_USE_AFTER_UNMAP &&
              static_cast<int>(Kind::permission) == MOAT_FAULT_PERMISSION &&
              static_cast<int>(Kind::poisoned) == MOAT_FAULT_POISONED &&
              static_cast<int>(Kind::wild) == MOAT_FAULT_WILD &&
              static_cast<int>(Kind::never_mapped) == MOAT_FAULT_NEVER_MAPPED &&
              static_cast<int>(Kind::mapped_and_allowed) == MOAT_FAULT_REFUSED &&
              static_cast<int>(Kind::not_attached) == MOAT_FAULT_NOT_ATTACHED &&
              static_cast<int>(Kind::no_access) == MOAT_FAULT_NO_ACCESS);
static_assert(static_cast<int>(fault::Access::unknown) == MOAT_ACCESS_UNKNOWN &&
              static_cast<int>(fault::Access::read) == MOAT_ACCESS_READ &&
              static_cast<int>(fault::Access::write) == MOAT_ACCESS_WRITE &&
              static_cast<int>(fault::Access::execute) == MOAT_ACCESS_EXECUTE);
static_assert(static_cast<int>(fault::Precision::none) == MOAT_PRECISION_NONE &&
              static_cast<int>(fault::Precision::exact) == MOAT_PRECISION_EXACT &&
              static_cast<int>(fault::Precision::start) == MOAT_PRECISION_START &&
              static_cast<int>(fault::Precision::page) == MOAT_PRECISION_PAGE);
static_assert(static_cast<int>(fault::Side::inside) == MOAT_SIDE_INSIDE &&
              static_cast<int>(fault::Side::left) == MOAT_SIDE_LEFT &&
              static_cast<int>(fault::Side::right) == MOAT_SIDE_RIGHT);

static_assert(static_cast<int>(DriverErrorKind::not_mapped) == MOAT_DRIVER_NOT_MAPPED &&
              static_cast<int>(DriverErrorKind::wrong_size) == MOAT_DRIVER_WRONG_SIZE &&
              static_cast<int>(DriverErrorKind::wrong_direction) == MOAT_DRIVER_WRONG_DIRECTION &&
              static_cast<int>(DriverErrorKind::outside) == MOAT_DRIVER_SYNC_OUTSIDE &&
              static_cast<int>(DriverErrorKind::cpu_wrote) == MOAT_DRIVER_CPU_WROTE &&
              static_cast<int>(DriverErrorKind::red_zone) == MOAT_DRIVER_RED_ZONE &&
              static_cast<int>(DriverErrorKind::leak) == MOAT_DRIVER_LEAK &&
              static_cast<int>(DriverErrorKind::missing_sync) == MOAT_DRIVER_MISSING_SYNC &&
              static_cast<int>(DriverErrorKind::double_mapping) == MOAT_DRIVER_DOUBLE_MAPPING &&
              static_cast<int>(DriverErrorKind::not_addressable) == MOAT_DRIVER_NOT_ADDRESSABLE &&
              static_cast<int>(DriverErrorKind::freed) == MOAT_DRIVER_FREED &&
              static_cast<int>(DriverErrorKind::not_invalidated) == MOAT_DRIVER_NOT_INVALIDATED);

[[nodiscard]] std::int32_t direction_of(fault::Allows allows) {
    switch (allows) {
    case fault::Allows::read:
        return MOAT_TO_DEVICE;
    case fault::Allows::write:
        return MOAT_FROM_DEVICE;
    case fault::Allows::nothing:
    case fault::Allows::read_write:
        break;
    }
    return MOAT_BIDIRECTIONAL;
}

/// Labels are the container's, each ended by a zero.
[[nodiscard]] moat_mapping for_c(const fault::Mapping& from) {
    return {.size = sizeof(moat_mapping),
            .direction = direction_of(from.allows),
            .iova = from.range.start().value(),
            .bytes = from.range.size().value(),
            .guard_before_bytes = from.guard_before.value(),
            .guard_after_bytes = from.guard_after.value(),
            .label = from.label.data() != nullptr ? from.label.data() : "",
            .unmaps_since = 0};
}

[[nodiscard]] const moat_mapping* keep(moat_mapping& slot,
                                       const std::optional<fault::Mapping>& from) {
    if (!from)
        return nullptr;
    slot = for_c(*from);
    return &slot;
}

[[nodiscard]] const moat_mapping* keep(moat_mapping& slot,
                                       const std::optional<fault::PastMapping>& from) {
    if (!from)
        return nullptr;
    slot = for_c(from->mapping);
    slot.unmaps_since = from->unmaps_since;
    return &slot;
}

/// Return: an empty text where there is no memory for it.
template <class Write>
[[nodiscard]] std::string text_or_nothing(Write&& write) noexcept {
    try {
        return write();
    } catch (const std::exception&) {
        return {};
    }
}

} // namespace

std::string as_text(const moat_report& report) {
    return report.fault != nullptr ? report.fault->text() : report.driver_error->text();
}

std::string as_json(const moat_report& report) {
    return report.fault != nullptr ? report.fault->json() : report.driver_error->json();
}

FaultForC::FaultForC(const moat_report& report, moat_device* device) noexcept {
    const fault::Diagnosis& diagnosis = report.fault->diagnosis();
    const fault::Record& record = diagnosis.record;
    if (record.source.kind() != fault::Source::Kind::unknown)
        (void)text_or_nothing([&] {
            return fault::to_string(record.source);
        }).copy(source_.data(), source_.size() - 1);
    summary_ = text_or_nothing([&] { return report.fault->summary(); });
    fault_ = {.size = sizeof(moat_fault),
              .kind = static_cast<std::int32_t>(diagnosis.kind),
              .access = static_cast<std::int32_t>(record.access),
              .precision = static_cast<std::int32_t>(record.precision),
              .iova = record.where.start().value(),
              .bytes = record.where.size().value(),
              .side = static_cast<std::int32_t>(diagnosis.side),
              .reserved = 0,
              .least_distance = diagnosis.distance.least,
              .most_distance = diagnosis.distance.most,
              .bytes_outside = diagnosis.bytes_outside,
              .mapping = keep(mappings_[0], diagnosis.mapping),
              .past = keep(mappings_[1], diagnosis.past),
              .next = keep(mappings_[2], diagnosis.next),
              .left = keep(mappings_[3], diagnosis.left),
              .right = keep(mappings_[4], diagnosis.right),
              .device = device,
              .source = source_.data(),
              .faults_lost = record.suppressed,
              .summary = summary_.c_str(),
              .report = &report};
}

DriverErrorForC::DriverErrorForC(const moat_report& report) noexcept {
    const dma::DriverError& error = report.driver_error->details();
    summary_ = text_or_nothing([&] { return report.driver_error->summary(); });
    const auto mapping = error.mapping.range.empty() ? std::nullopt : std::optional(error.mapping);
    error_ = {.size = sizeof(moat_driver_error),
              .kind = static_cast<std::int32_t>(error.kind),
              .iova = error.range.start().value(),
              .bytes = error.range.size().value(),
              .mapping = keep(mappings_[0], mapping),
              .past = keep(mappings_[1], error.past),
              .summary = summary_.c_str(),
              .report = &report};
}

} // namespace moat::api::c
