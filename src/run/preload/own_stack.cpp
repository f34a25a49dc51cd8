// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Unwinding takes microseconds, and drivers call from few places. So the latest stacks are kept
// with the place of each return address; a stack is the same if each still lies there.
#include "run/preload/own_stack.hpp"

#include <algorithm>
#include <array>
#include <unwind.h>

namespace moat::run {

thread_local constinit EntryPlace entered = {};

namespace {

constexpr std::size_t most_frames = 32;
constexpr std::uintptr_t largest_stack = 8 << 20;

struct Frame {
    std::uintptr_t address = 0; ///< in the program's code
    std::uintptr_t stack = 0;   ///< the stack pointer there; below it lies `address`
};

struct Capture {
    EntryPlace place;
    std::array<Frame, most_frames> frames = {};
    std::size_t count = 0;
    bool outside = false; ///< of this library
};

/// The captures of places with an equal hash.
struct Ways {
    std::array<Capture, 4> captures = {};
    unsigned next = 0; ///< to be replaced
};

thread_local constinit std::array<Ways, 8> latest = {};

/// Where the stack of a place is kept, or will be.
[[nodiscard]] Capture& kept(const EntryPlace& place) {
    const std::uintptr_t mixed = (place.address ^ place.stack >> 3) * 0x9e3779b97f4a7c15;
    Ways& ways = latest[mixed >> 61];
    auto& captures = ways.captures;
    const auto found = std::ranges::find(captures, place, &Capture::place);
    return found != captures.end() ? *found : captures[ways.next++ % captures.size()];
}

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* argument) {
    auto& capture = *static_cast<Capture*>(argument);
    const std::uintptr_t address = _Unwind_GetIP(context);
    if (address == 0 || capture.count == capture.frames.size())
        return _URC_END_OF_STACK;
    capture.outside = capture.outside || address == capture.place.address;
    if (capture.outside)
        capture.frames[capture.count++] = {address, _Unwind_GetCFA(context)};
    return _URC_NO_REASON;
}

[[nodiscard]] bool is_current(const Capture& capture) {
    const std::span<const Frame> frames(capture.frames.data(), capture.count);
    return !frames.empty() && capture.place == entered &&
           std::ranges::all_of(frames.subspan(1), [start = entered.stack](const Frame& frame) {
               return frame.stack - start < largest_stack &&
                      reinterpret_cast<const std::uintptr_t*>(frame.stack)[-1] == frame.address;
           });
}

} // namespace

std::size_t own_stack(std::span<std::uintptr_t> frames) {
    if (entered.address == 0)
        return 0;
    Capture& capture = kept(entered);
    if (!is_current(capture)) {
        capture = {.place = entered};
        _Unwind_Backtrace(add_frame, &capture);
        if (capture.count == 0)
            capture.frames[capture.count++] = {entered.address, entered.stack};
    }
    const std::size_t count = std::min(frames.size(), capture.count);
    for (std::size_t i = 0; i != count; ++i)
        frames[i] = capture.frames[i].address;
    if (count != 0 && entered.is_fault) // symbols are looked up before a return address
        ++frames[0];
    return count;
}

} // namespace moat::run
