// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Stacks by the compiler's unwinder, and their words by libdw. See platform/stack.hpp.
#include "moat/platform/stack.hpp"

#include <cstdlib>
#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <string>
#include <unistd.h>
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

template <class T>
using Malloced = std::unique_ptr<T, Free>;

[[nodiscard]] std::string demangled(const char* name) {
    if (name == nullptr)
        return {};
    int status = 0;
    const Malloced<char> text(abi::__cxa_demangle(name, nullptr, nullptr, &status));
    return status == 0 ? text.get() : name;
}

/// The function that a scope is, inlined or not.
[[nodiscard]] std::string function_name(Dwarf_Die* die) {
    Dwarf_Attribute attribute;
    for (const unsigned kind : {DW_AT_linkage_name, DW_AT_MIPS_linkage_name})
        if (dwarf_attr_integrate(die, kind, &attribute) != nullptr)
            return demangled(dwarf_formstring(&attribute));
    const char* const name = dwarf_diename(die);
    return name == nullptr ? "" : name;
}

[[nodiscard]] unsigned number(Dwarf_Die* die, unsigned kind) {
    Dwarf_Attribute attribute;
    Dwarf_Word value = 0;
    if (dwarf_attr_integrate(die, kind, &attribute) == nullptr ||
        dwarf_formudata(&attribute, &value) != 0)
        return 0;
    return static_cast<unsigned>(value);
}

/// A place in a source file, as debug information names it.
struct Place {
    const char* file = nullptr;
    unsigned line = 0;
};

/// Where an inlined function was called.
[[nodiscard]] Place call_place(Dwarf_Die* unit, Dwarf_Die* inlined) {
    Place place{.line = number(inlined, DW_AT_call_line)};
    Dwarf_Files* files = nullptr;
    std::size_t count = 0;
    const unsigned file = number(inlined, DW_AT_call_file);
    if (dwarf_getsrcfiles(unit, &files, &count) == 0 && file < count)
        place.file = dwarf_filesrc(files, file, nullptr, nullptr);
    return place;
}

} // namespace

std::size_t capture_stack(std::span<std::uintptr_t> frames, unsigned skip) {
    Capture capture{frames, 0, skip + 1}; // the first frame is this function
    _Unwind_Backtrace(add_frame, &capture);
    return capture.written;
}

/// libdw's view of this process.
class Symboliser::Session {
  public:
    Session() : dwfl_(dwfl_begin(&callbacks_)) { refresh(); }

    ~Session() { dwfl_end(dwfl_); }

    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    [[nodiscard]] Dwfl_Module* module_of(Dwarf_Addr address) {
        if (Dwfl_Module* const module = dwfl_addrmodule(dwfl_, address))
            return module;
        refresh();
        return dwfl_addrmodule(dwfl_, address);
    }

    void describe(std::uintptr_t return_address, FunctionRef<void(const StackFrame&)> sink) {
        const Dwarf_Addr address = return_address - 1; // within the call
        Dwfl_Module* const module = module_of(address);
        if (module == nullptr)
            return sink({.address = return_address});
        StackFrame frame{.address = return_address, .module = module_name(module)};
        Dwarf_Addr bias = 0;
        Dwarf_Die* const unit = dwfl_module_addrdie(module, address, &bias);
        if (unit != nullptr && describe_scopes(frame, module, unit, address, bias, sink))
            return;
        const std::string name = demangled(dwfl_module_addrname(module, address));
        frame.function = name;
        sink(frame);
    }

  private:
    void refresh() {
        dwfl_report_begin_add(dwfl_);
        dwfl_linux_proc_report(dwfl_, getpid());
        dwfl_report_end(dwfl_, nullptr, nullptr);
    }

    [[nodiscard]] static std::string_view module_name(Dwfl_Module* module) {
        const char* const name =
            dwfl_module_info(module, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
        const std::string_view path = name == nullptr ? "" : name;
        return path.substr(path.rfind('/') + 1);
    }

    /// Return: whether debug information knew the function.
    [[nodiscard]] static bool describe_scopes(StackFrame frame, Dwfl_Module* module,
                                              Dwarf_Die* unit, Dwarf_Addr address, Dwarf_Addr bias,
                                              FunctionRef<void(const StackFrame&)> sink) {
        Place place;
        if (Dwfl_Line* const line = dwfl_module_getsrc(module, address)) {
            int number = 0;
            place.file = dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr);
            place.line = static_cast<unsigned>(number);
        }
        Dwarf_Die* innermost = nullptr;
        if (dwarf_getscopes(unit, address - bias, &innermost) <= 0)
            return false;
        const Malloced<Dwarf_Die> owned(innermost);
        // What encloses the innermost scope in the program, not in the inlined function's source.
        Dwarf_Die* scopes = nullptr;
        const int count = dwarf_getscopes_die(innermost, &scopes);
        if (count <= 0)
            return false;
        const Malloced<Dwarf_Die> owned_too(scopes);
        bool found = false;
        for (int index = 0; index != count; ++index) {
            Dwarf_Die* const die = scopes + index;
            const int tag = dwarf_tag(die);
            if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram)
                continue;
            const std::string name = function_name(die);
            frame.function = name;
            frame.file = place.file == nullptr ? "" : place.file;
            frame.line = place.line;
            sink(frame);
            found = true;
            if (tag == DW_TAG_subprogram)
                break;
            place = call_place(unit, die);
        }
        return found;
    }

    static constexpr Dwfl_Callbacks callbacks_ = {.find_elf = dwfl_linux_proc_find_elf,
                                                  .find_debuginfo = dwfl_standard_find_debuginfo,
                                                  .section_address = nullptr,
                                                  .debuginfo_path = nullptr};
    Dwfl* dwfl_;
};

Symboliser::Symboliser() : session_(std::make_unique<Session>()) {}

Symboliser::~Symboliser() = default;

void Symboliser::operator()(std::uintptr_t return_address,
                            FunctionRef<void(const StackFrame&)> sink) {
    session_->describe(return_address, sink);
}

} // namespace moat::platform
