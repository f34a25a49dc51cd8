// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks by the compiler's unwinder; symbols by libbacktrace.
#include "platform/stack.hpp"

#include <backtrace.h>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <map>
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

/// nullptr: this program. Without threads, and for ever: libbacktrace frees nothing.
[[nodiscard]] backtrace_state* read_symbols(const char* program) {
    return backtrace_create_state(program, 0, on_error, nullptr);
}

void ask(backtrace_state* state, Question& question) {
    const std::uintptr_t address = question.frame.address - 1; // within the call
    if (state != nullptr) {
        backtrace_pcinfo(state, address, on_line, on_error, &question);
        if (!question.answered)
            backtrace_syminfo(state, address, on_symbol, on_error, &question);
    }
    if (!question.answered)
        question.sink(question.frame);
}

std::mutex one_at_a_time;

} // namespace

std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip) {
    constexpr unsigned all = ~0U;
    Capture capture{frames, 0, skip == all ? all : skip + 1}; // skips this function
    _Unwind_Backtrace(add_frame, &capture);
    return capture.written;
}

void symbolise(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink) {
    const std::lock_guard lock(one_at_a_time);
    static backtrace_state* const state = read_symbols(nullptr);
    Question question{{.address = return_address, .module = module_of(return_address - 1)}, sink};
    ask(state, question);
}

void symbolise_program(const std::string& path, std::uintptr_t return_address,
                       FunctionRef<void(const StackFrame&)> sink) {
    const std::lock_guard lock(one_at_a_time);
    static std::map<std::string, backtrace_state*> states;
    const auto [known, is_new] = states.try_emplace(path, nullptr);
    if (is_new)
        known->second = read_symbols(known->first.c_str());
    const std::string_view module = std::string_view(path).substr(path.rfind('/') + 1);
    Question question{{.address = return_address, .module = module}, sink};
    ask(known->second, question);
}

} // namespace moat::platform
