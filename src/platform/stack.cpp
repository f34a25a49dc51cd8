// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks by the compiler's unwinder; symbols by libbacktrace.
#include "platform/stack.hpp"

#include <backtrace.h>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <memory>
#include <mutex>
#include <string>
#include <unwind.h>

namespace moat::platform {

namespace {

struct Capture {
    std::span<std::uintptr_t> frames;
    std::size_t written;
    unsigned skip;
};

_Unwind_Reason_Code add_frame(_Unwind_Context* context, void* argument) {
    auto& capture = *static_cast<Capture*>(argument);
    const std::uintptr_t address = _Unwind_GetIP(context);
    if (address == 0 || capture.written == capture.frames.size())
        return _URC_END_OF_STACK;
    if (capture.skip != 0)
        --capture.skip;
    else
        capture.frames[capture.written++] = address;
    return _URC_NO_REASON;
}

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

[[nodiscard]] std::string demangled(const char* name) {
    int status = 0;
    const std::unique_ptr<char, Free> text(abi::__cxa_demangle(name, nullptr, nullptr, &status));
    return status == 0 ? text.get() : name;
}

/// The module at an address, without its folder. Lives as long as the module is loaded.
[[nodiscard]] std::string_view module_of(std::uintptr_t address) {
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(address), &info) == 0 || info.dli_fname == nullptr)
        return {};
    const std::string_view path = info.dli_fname;
    return path.substr(path.rfind('/') + 1);
}

/// What libbacktrace's callbacks collect.
struct Question {
    StackFrame frame;
    FunctionRef<void(const StackFrame&)> sink;
    bool answered = false;

    void answer(const char* function, const char* file, int line) {
        const std::string name = demangled(function);
        frame.function = name;
        frame.file = file == nullptr ? "" : file;
        frame.line = static_cast<unsigned>(line);
        answered = true;
        sink(frame);
    }
};

int on_line(void* question, std::uintptr_t, const char* file, int line, const char* function) {
    if (function != nullptr)
        static_cast<Question*>(question)->answer(function, file, line);
    return 0;
}

void on_symbol(void* question, std::uintptr_t, const char* symbol, std::uintptr_t, std::uintptr_t) {
    if (symbol != nullptr)
        static_cast<Question*>(question)->answer(symbol, nullptr, 0);
}

/// Missing symbols are not an error: the frame has only an address.
void on_error(void*, const char*, int) {}

} // namespace

std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip) {
    constexpr unsigned all = ~0U;
    Capture capture{frames, 0, skip == all ? all : skip + 1}; // skips this function
    _Unwind_Backtrace(add_frame, &capture);
    return capture.written;
}

void symbolise(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink) {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    constexpr int without_threads = 0;
    static backtrace_state* const state =
        backtrace_create_state(nullptr, without_threads, on_error, nullptr);
    const std::uintptr_t address = return_address - 1; // within the call
    Question question{{.address = return_address, .module = module_of(address)}, sink};
    if (state != nullptr) {
        backtrace_pcinfo(state, address, on_line, on_error, &question);
        if (!question.answered)
            backtrace_syminfo(state, address, on_symbol, on_error, &question);
    }
    if (!question.answered)
        sink(question.frame);
}

} // namespace moat::platform
