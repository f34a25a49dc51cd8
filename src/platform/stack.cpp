// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks by the compiler's unwinder; symbols by libbacktrace.
#include "platform/stack.hpp"

#include <backtrace.h>
#include <cstdlib>
#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fstream>
#include <link.h>
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

void ask(backtrace_state* state, std::uintptr_t address, Question& question) {
    if (state != nullptr) {
        backtrace_pcinfo(state, address, on_line, on_error, &question);
        if (!question.answered)
            backtrace_syminfo(state, address, on_symbol, on_error, &question);
    }
    if (!question.answered)
        question.sink(question.frame);
}

std::mutex one_at_a_time;

/// libbacktrace takes a file that may lie anywhere for this program's, and lays it there.
struct File {
    backtrace_state* symbols = nullptr;
    std::uintptr_t place = 0;
};

[[nodiscard]] bool moves(const std::string& path) {
    Elf64_Ehdr header{};
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    return file && header.e_type == ET_DYN;
}

[[nodiscard]] std::uintptr_t own_place() {
    std::uintptr_t place = 0;
    const auto take_first = [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<std::uintptr_t*>(to) = info->dlpi_addr;
        return 1;
    };
    dl_iterate_phdr(take_first, &place);
    return place;
}

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
    Question question{{.address = return_address, .module = module_of(return_address)}, sink};
    ask(state, return_address - 1, question); // within the call
}

void symbolise_in_file(const std::string& path, std::uintptr_t address, const StackFrame& frame,
                       FunctionRef<void(const StackFrame&)> sink) {
    const std::lock_guard lock(one_at_a_time);
    static std::map<std::string, File> files;
    const auto [known, is_new] = files.try_emplace(path);
    if (is_new)
        known->second = {read_symbols(known->first.c_str()), moves(path) ? own_place() : 0};
    Question question{frame, sink};
    ask(known->second.symbols, address + known->second.place, question);
}

} // namespace moat::platform
