// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How closely devices are watched: chosen by a call, or by the variable MOAT_OPTIONS in the style
// that users of sanitizers know. No effects; space.hpp acts on them.
#pragma once

#include "moat/core/types.hpp"
#include "moat/dma/detail/cpu_watch.hpp"

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace moat::dma {

enum class Level : std::uint8_t {
    guard, ///< guard pages, and nothing that costs
    track, ///< who mapped what: faults are attributed, drivers' errors found
    exact, ///< to the byte: small buffers at the edge of a page, what surrounds them checked
};

/// Where in its page a small buffer lies at level exact.
enum class Placement : std::uint8_t { right, left };

enum class Unmapping : std::uint8_t {
    strict,   ///< on return no access reaches the buffer
    deferred, ///< invalidated in batches; the buffer must rest until `flush`
};

/// What to do if memory is mapped a second time and a device may write it.
enum class DoubleMapping : std::uint8_t { report, ignore };

enum class ReportForm : std::uint8_t { text, json };

struct Options {
    Level level = Level::track;
    /// Unmapped bytes after every mapping, rounded up to pages; 0 is off.
    ByteCount guard{4096};
    ByteCount guard_before{};
    Placement placement = Placement::right;
    /// At level exact always strict.
    Unmapping unmapping = Unmapping::strict;
    /// How much unmapped address space is kept out of use, so that a late access still faults.
    ByteCount quarantine{};
    /// Of every so many mappings one has its call stack taken; 0: none.
    std::uint32_t stacks = 0;
    /// How many past mappings are remembered.
    std::uint32_t history = 1024;
    /// One mapping in `sample`, on average, is watched as at level exact and has its stack taken;
    /// the others cost what level `guard` costs, and `level` has no effect. 0: no sampling.
    std::uint32_t sample = 0;
    /// At level exact.
    DoubleMapping double_mapping = DoubleMapping::report;
    /// Whether a memory checker in the process watches the CPU, from level `track` on
    /// (cpu_watch.hpp).
    CpuWatch cpu = CpuWatch::asan;
    ReportForm report = ReportForm::text;
    bool help = false; ///< the reader asks for `options_help`
};

/// Reads `name=value:name=value:...` over `defaults`. Sizes are bytes, or end in k, m or g.
/// Return: the options; or a sentence that names what was wrong and what would be right.
[[nodiscard]] std::expected<Options, std::string> parse_options(std::string_view text,
                                                                const Options& defaults = {});

/// All that `parse_options` understands, a line each.
[[nodiscard]] std::string_view options_help();

} // namespace moat::dma
