// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/call_stacks.hpp"

#include <elfutils/libdwfl.h>

namespace moat::run {

struct CallStacks::Walk {
    const StoppedThread& thread;
    ReadMemory memory;
    std::span<std::uintptr_t> frames;
    std::size_t count = 0;
};

/// What libdw calls. `user` is the address of a CallStacks.
struct CallStacks::Callbacks {
    /// Reads the file: where it is mapped instead, the program can end this process by cutting it.
    static int find_file(Dwfl_Module* module, void** data, const char* name, Dwarf_Addr base,
                         char** path, Elf** file) {
        const int descriptor = dwfl_linux_proc_find_elf(module, data, name, base, path, file);
        if (descriptor >= 0)
            *file = elf_begin(descriptor, ELF_C_READ, nullptr);
        return descriptor;
    }

    /// Separate files with symbols are not wanted: libdw may fetch them from a network.
    static int find_no_symbols(Dwfl_Module* /*module*/, void** /*data*/, const char* /*name*/,
                               Dwarf_Addr /*base*/, const char* /*file*/, const char* /*link*/,
                               GElf_Word /*checksum*/, char** /*found*/) {
        return -1;
    }

    static pid_t no_thread(Dwfl* /*files*/, void* /*user*/, void** /*thread*/) { return 0; }

    static bool get_thread(Dwfl* /*files*/, pid_t number, void* user, void** thread) {
        Walk* const walk = static_cast<CallStacks*>(user)->walk_;
        *thread = walk;
        return walk != nullptr && number == walk->thread.number();
    }

    static bool set_registers(Dwfl_Thread* thread, void* walk) {
        const DwarfRegisters values = static_cast<Walk*>(walk)->thread.dwarf_registers();
        return dwfl_thread_state_registers(thread, 0, values.size(), values.data());
    }

    static bool read_memory(Dwfl* /*files*/, Dwarf_Addr address, Dwarf_Word* into, void* user) {
        const auto number = static_cast<CallStacks*>(user)->walk_->memory(address);
        *into = number.value_or(0);
        return number.has_value();
    }

    static int add_frame(Dwfl_Frame* frame, void* to) {
        Walk& walk = *static_cast<Walk*>(to);
        Dwarf_Addr address = 0;
        bool interrupted = false; // by a signal, so that no call lies before the address
        if (!dwfl_frame_pc(frame, &address, &interrupted) || address == 0)
            return DWARF_CB_ABORT;
        walk.frames[walk.count] = address + (interrupted && walk.count != 0 ? 1 : 0);
        return ++walk.count == walk.frames.size() ? DWARF_CB_ABORT : DWARF_CB_OK;
    }

    static constexpr Dwfl_Callbacks of_files = {.find_elf = find_file,
                                                .find_debuginfo = find_no_symbols,
                                                .section_address = nullptr,
                                                .debuginfo_path = nullptr};
    static constexpr Dwfl_Thread_Callbacks of_threads = {.next_thread = no_thread,
                                                         .get_thread = get_thread,
                                                         .memory_read = read_memory,
                                                         .set_initial_registers = set_registers,
                                                         .detach = nullptr,
                                                         .thread_detach = nullptr};
};

void CallStacks::End::operator()(Dwfl* files) const {
    dwfl_end(files);
}

CallStacks::CallStacks(pid_t process)
    : process_(process), files_(dwfl_begin(&Callbacks::of_files)) {}

void CallStacks::look_at_files() {
    dwfl_report_begin(files_.get());
    (void)dwfl_linux_proc_report(files_.get(), process_);
    (void)dwfl_report_end(files_.get(), nullptr, nullptr);
    if (!attached_)
        attached_ =
            dwfl_attach_state(files_.get(), nullptr, process_, &Callbacks::of_threads, this);
}

std::size_t CallStacks::take(const StoppedThread& thread, ReadMemory memory,
                             std::span<std::uintptr_t> frames) {
    if (frames.empty())
        return 0;
    Walk walk = {thread, memory, frames};
    walk_ = &walk;
    const auto take_frames = [&] {
        walk.count = 0;
        if (attached_)
            (void)dwfl_getthread_frames(files_.get(), thread.number(), Callbacks::add_frame, &walk);
        return walk.count != 0 && dwfl_addrmodule(files_.get(), frames[walk.count - 1]) != nullptr;
    };
    // A stack that ends in an unknown file may go on once that file is known.
    if (files_ && !take_frames()) {
        look_at_files();
        (void)take_frames();
    }
    walk_ = nullptr;
    if (walk.count != 0)
        return walk.count;
    frames[0] = thread.instruction_pointer();
    return 1;
}

} // namespace moat::run
