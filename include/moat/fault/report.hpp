// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A diagnosis as text in the manner of AddressSanitizer, and as one line of JSON.
// It finds nothing out and prints nothing itself; docs/report_schema.md documents the JSON.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/stack_frame.hpp"
#include "moat/fault/decode.hpp"
#include "moat/fault/diagnosis.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace moat::fault {

/// Hands out the frames of one address, innermost first: several where functions were inlined.
using FrameSink = FunctionRef<void(const StackFrame&)>;

/// Turns an address of a stack into frames, or hands out one with the address alone.
using Symbolise = FunctionRef<void(std::uintptr_t address, FrameSink sink)>;

/// The addresses and nothing else: for reports where no symbols are wanted.
inline constexpr auto no_symbols = [](std::uintptr_t address, FrameSink sink) {
    sink(StackFrame{.address = address});
};

enum class Colour : std::uint8_t { none, ansi };

struct ReportOptions {
    Colour colour = Colour::none;
    /// Printed in the headline, where it is not 0.
    std::uint64_t process_id = 0;
    /// What the device is called beside its number, say "edu"; may be empty.
    std::string_view device = {};
    unsigned most_frames = 16;
    /// Columns of the map of the neighbourhood; what is not 16 to 4096 is made so.
    unsigned map_columns = 64;
    /// The IOMMU's smallest page: what lies between a buffer and the end of its page is a red zone.
    std::uint64_t page_bytes = 4096;
    Symbolise symbolise = no_symbols;
};

/// One line: "dma-buffer-overflow: write by 00:01.0, 17 bytes past the end of "a"".
[[nodiscard]] std::string summary(const Diagnosis& diagnosis);

/// The whole report, some lines, each with its end.
[[nodiscard]] std::string text_report(const Diagnosis& diagnosis,
                                      const ReportOptions& options = {});

/// One line of JSON without its end. Bytes of labels that are not UTF-8 are replaced.
[[nodiscard]] std::string json_report(const Diagnosis& diagnosis,
                                      const ReportOptions& options = {});

/// The same for a line of a log, of which no mappings are known.
[[nodiscard]] std::string json_report(const Decoded& decoded);

/// "WHAT by thread 7 at 1.5 s here:" and the stack, each frame a line; empty where nothing is
/// known.
[[nodiscard]] std::string event_text(std::string_view what, const Event& event,
                                     const ReportOptions& options = {});

/// The map alone: what lies around the access, drawn to scale. Empty where there is no address.
[[nodiscard]] std::string neighbourhood(const Diagnosis& diagnosis,
                                        const ReportOptions& options = {});

} // namespace moat::fault
