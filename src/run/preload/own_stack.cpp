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

/// A return address below `stack`, the stack pointer after the return.
struct Frame {
    std::uintptr_t address = 0;
    std::uintptr_t stack = 0;

    [[nodiscard, gnu::always_inline]] bool is_current() const {
        return reinterpret_cast<const std::uintptr_t*>(stack)[-1] == address;
    }
};

struct Capture {
    EntryPlace place;
    std::array<Frame, most_frames> callers = {};
    std::size_t count = 0;
    fault::StackView kept = {};

    /// Whether the stack at `place` still has these callers. Stops at the first that differs, since
    /// the stack may end sooner now.
    [[nodiscard, gnu::always_inline]] bool is_current() const {
        for (std::size_t i = 0; i != count; ++i)
            if (!callers[i].is_current())
                return false;
        return true;
    }
};

/// The captures of places with an equal hash.
struct Ways {
    std::array<Capture, 4> captures = {};
    unsigned next = 0; ///< to be replaced
};

thread_local constinit std::array<Ways, 8> latest = {};

[[nodiscard]] Ways& ways_of(const EntryPlace& place) {
    const std::uintptr_t mixed = (place.address ^ place.stack >> 3) * 0x9e3779b97f4a7c15;
    return latest[mixed >> 61];
}

/// The frames outside of this library, from `place` on.
struct Walk {
    EntryPlace place;
    std::array<Frame, most_frames> frames = {};
    std::size_t count = 0;
    bool outside = false;
};

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* argument) {
    auto& walk = *static_cast<Walk*>(argument);
    const Frame frame{_Unwind_GetIP(context), _Unwind_GetCFA(context)};
    if (frame.address == 0 || walk.count == walk.frames.size())
        return _URC_END_OF_STACK;
    walk.outside = walk.outside || frame.address == walk.place.address;
    if (walk.outside)
        walk.frames[walk.count++] = frame;
    return _URC_NO_REASON;
}

/// Captures the stack of `entered`.
void take(Capture& capture, Stacks& stacks) {
    Walk walk{.place = entered};
    _Unwind_Backtrace(add_frame, &walk);
    if (walk.count == 0)
        walk.frames[walk.count++] = {entered.address, entered.stack};
    capture.place = entered;
    capture.count = 0;
    std::array<std::uintptr_t, most_frames> addresses{};
    for (std::size_t i = 0; i != walk.count; ++i) {
        const Frame& frame = walk.frames[i];
        addresses[i] = frame.address;
        if (frame.stack - entered.stack >= largest_stack)
            capture.place = {}; // another stack, which may be gone: taken anew each time
        else if (i != 0)
            capture.callers[capture.count++] = frame;
    }
    if (entered.is_fault) // symbols are looked up before a return address
        ++addresses[0];
    capture.kept = stacks.keep(std::span(addresses).first(walk.count));
}

} // namespace

fault::StackView own_stack(Stacks& stacks) {
    if (entered.address == 0)
        return {};
    const EntryPlace place = entered;
    Ways& ways = ways_of(place);
    for (Capture& each : ways.captures)
        if (each.place == place) {
            if (!each.is_current()) [[unlikely]]
                take(each, stacks);
            return each.kept;
        }
    Capture& oldest = ways.captures[ways.next++ % ways.captures.size()];
    take(oldest, stacks);
    return oldest.kept;
}

} // namespace moat::run
