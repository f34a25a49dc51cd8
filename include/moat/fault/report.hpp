// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Renders a diagnosis as text in the style of AddressSanitizer, and as one line of JSON
// (docs/report_schema.md). Pure.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"
#include "moat/fault/diagnose.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace moat::fault {

/// Passes on the frames of one address, innermost first: several for inlined functions.
using FrameSink = FunctionRef<void(const StackFrame&)>;

/// Passes on the frames of an address, or one with the address alone.
using Symbolise = FunctionRef<void(std::uintptr_t address, FrameSink sink)>;

/// A symboliser without symbols: addresses alone.
inline constexpr auto no_symbols = [](std::uintptr_t address, FrameSink sink) {
    sink(StackFrame{.address = address});
};

enum class Colour : std::uint8_t { none, ansi };

struct ReportOptions {
    Colour colour = Colour::none;
    /// Printed in the headline unless 0.
    std::uint64_t process_id = 0;
    /// The device's name beside its number, such as "edu"; may be empty.
    std::string_view device = {};
    unsigned most_frames = 16;
    /// Columns of the neighbourhood's map; clamped to 16 to 4096.
    unsigned map_columns = 64;
    /// The IOMMU's smallest page: the red zone of a buffer is the rest of its page.
    std::uint64_t page_bytes = 4096;
    Symbolise symbolise = no_symbols;
};

/// One line: "dma-buffer-overflow: write by 00:01.0, 17 bytes past the end of "a"".
[[nodiscard]] std::string summary(const Diagnosis& diagnosis);

/// The whole report, as lines with line ends.
[[nodiscard]] std::string text_report(const Diagnosis& diagnosis,
                                      const ReportOptions& options = {});

/// One line of JSON without a line end. Replaces bytes of labels that are not UTF-8.
[[nodiscard]] std::string json_report(const Diagnosis& diagnosis,
                                      const ReportOptions& options = {});

/// "WHAT by thread 7 at 1.5 s here:" and the stack, one frame per line; empty if nothing is known.
[[nodiscard]] std::string event_text(std::string_view what, const Event& event,
                                     const ReportOptions& options = {});

/// The map alone: the surroundings of the access, to scale. Empty without an address.
[[nodiscard]] std::string neighbourhood(const Diagnosis& diagnosis,
                                        const ReportOptions& options = {});

} // namespace moat::fault
