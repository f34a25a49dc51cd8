// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How closely devices are watched: set in code, or by the variable MOAT_OPTIONS in the style of the
// sanitizers. SpaceConfig adds the caller's hooks. Values only; space.hpp acts on them.
#pragma once

#include "moat/core/types.hpp"
#include "moat/dma/driver_error.hpp"
#include "moat/dma/memory.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <expected>
#include <span>
#include <string>
#include <string_view>

namespace moat::dma {

enum class Level : std::uint8_t {
    guard, ///< guard pages only, at almost no cost
    track, ///< records every mapping: attributes faults, finds drivers' errors
    exact, ///< to the byte: small buffers at the edge of a page, with checked red zones
};

/// The end of its page at which a small buffer lies at level exact.
enum class Placement : std::uint8_t { right, left };

enum class Unmapping : std::uint8_t {
    strict,   ///< on return of unmap no device reaches the buffer
    deferred, ///< invalidates in batches; the buffer must stay unused until `flush`
};

/// What to do if memory is mapped twice and a device may write it.
enum class DoubleMapping : std::uint8_t { report, ignore };

/// Whether a memory checker in the process (AddressSanitizer, or valgrind's memcheck) stops the CPU
/// at bytes that the device owns, from level `track` on. The checkers' common name is `asan`.
enum class CpuWatch : std::uint8_t { off, asan };

enum class ReportForm : std::uint8_t { text, json };

struct Options {
    Level level = Level::track;
    /// Unmapped bytes after every mapping, rounded up to pages; 0 is off.
    ByteCount guard{4096};
    ByteCount guard_before{};
    Placement placement = Placement::right;
    /// Always strict at level exact.
    Unmapping unmapping = Unmapping::strict;
    /// How many bytes of unmapped addresses stay out of use, so that a late access still faults.
    ByteCount quarantine{};
    /// One mapping in `stacks` records its call stack; 0: none.
    std::uint32_t stacks = 0;
    /// How many past mappings are kept.
    std::uint32_t history = 1024;
    /// One mapping in `sample`, on average, is watched as at level exact and records its stack; the
    /// others cost as much as at level `guard`, and `level` has no effect. 0: no sampling.
    std::uint32_t sample = 0;
    /// At level exact.
    DoubleMapping double_mapping = DoubleMapping::report;
    /// No effect without a checker in the process.
    CpuWatch cpu = CpuWatch::asan;
    ReportForm report = ReportForm::text;
    /// A file to which the space's events are recorded; space_recorder.hpp. Empty: none. Whoever
    /// creates the space acts on it, by SpaceConfig::recorder.
    std::string record = {};
    bool help = false; ///< the user asks for `options_help`
};

/// Parses `name=value:name=value:...` over `defaults`. Sizes are bytes, or end in k, m or g.
/// Return: the options; or a sentence with the invalid part and the valid choices.
[[nodiscard]] std::expected<Options, std::string> parse_options(std::string_view text,
                                                                const Options& defaults = {});

/// Describes what `parse_options` understands, one option per line.
[[nodiscard]] std::string_view options_help();

/// Writes the callers' return addresses to `frames`, innermost first. Return: how many. Any thread.
/// platform/stack.hpp has one.
using CaptureStack = std::size_t (*)(std::span<std::uintptr_t> frames);

/// Whole pages that the domain can map. Any thread calls it, without a lock of the space.
struct PageSource {
    /// `size` and the result's address are multiples of a page. Return: empty without memory.
    Memory (*allocate)(void* context, ByteCount size) = nullptr;
    void (*release)(void* context, const Memory& pages) = nullptr;
    void* context = nullptr;
};

/// Memory of this process, as Memory::own, for domains with pages of up to 64 KiB.
[[nodiscard]] inline PageSource own_pages() {
    return {[](void*, ByteCount size) {
                const std::uint64_t page = size.value() & -size.value(); // or a multiple of one
                auto* const bytes = static_cast<std::byte*>(
                    std::aligned_alloc(std::min<std::uint64_t>(page, 64 << 10), size.value()));
                return bytes == nullptr ? Memory() : Memory::own({bytes, size.value()});
            },
            [](void*, const Memory& pages) { std::free(pages.bytes.data()); }, nullptr};
}

/// A mapping that a space just made; a scatter list is one, with the guards in it.
struct RecordedMap {
    IovaRange range = {};
    PhysicalAddress memory = {}; ///< of the first byte
    Direction direction = Direction::bidirectional;
    std::string_view label = {};
};

/// Gets every mapping and fault of a space, at every level. Called on the thread of the call, after
/// it succeeded and without a lock of the space; another thread's call that reuses the address may
/// come before the unmap. All functions are set, or none. What `context` points to outlives the
/// space.
struct Recorder {
    void (*map)(void* context, const RecordedMap& map) noexcept = nullptr;
    void (*unmap)(void* context, IovaRange range) noexcept = nullptr;
    void (*fault)(void* context, const fault::Record& record) noexcept = nullptr;
    void* context = nullptr;
};

struct SpaceConfig {
    Options options = {};
    /// The last address that every device of the domain can send.
    Iova dma_mask{~std::uint64_t{0}};
    Listener listener = {};
    /// Required if `options.stacks` is not 0. If set, sampled mappings and mappings that a memory
    /// checker watches record their stacks too.
    CaptureStack capture = nullptr;
    /// Required at level `exact` and for sampling: whole pages for small buffers. For in-process
    /// devices, a memory checker watches only mappings with such pages.
    PageSource pages = {};
    /// Every map and unmap leaves its fast path then.
    Recorder recorder = {};
};

} // namespace moat::dma
