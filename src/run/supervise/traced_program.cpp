// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/traced_program.hpp"

#include "run/supervise/program_symbols.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace moat::run {

namespace {

using VmTransfer = decltype(::process_vm_readv);

[[nodiscard]] ssize_t transfer(VmTransfer* function, pid_t process, std::span<const iovec> local,
                               std::uint64_t address, std::size_t bytes) {
    const iovec remote = {reinterpret_cast<void*>(address), bytes};
    return function(process, local.data(), local.size(), &remote, 1, 0);
}

} // namespace

TracedProgram::TracedProgram(pid_t process, OpenFiles& files, const Options& options)
    : process_(process), handle_(static_cast<int>(::syscall(SYS_pidfd_open, process, 0))),
      files_(files), options_(options) {}

Session& TracedProgram::session() {
    if (!session_)
        session_ = std::make_unique<Session>(options_, *this);
    return *session_;
}

void TracedProgram::finish() {
    finished_ = true;
    if (session_)
        session_->finish();
}

bool TracedProgram::is_region(std::uint64_t address) {
    const auto mapped = mapping_at(process_, address);
    return mapped && files_.find(mapped->file);
}

std::size_t TracedProgram::read(std::uint64_t address, std::span<std::byte> into) {
    if (into.empty())
        return 0;
    const std::array local = {iovec{into.data(), into.size()}};
    const ssize_t done = transfer(::process_vm_readv, process_, local, address, into.size());
    if (done > 0)
        return static_cast<std::size_t>(done);
    if (!is_region(address))
        return 0;
    std::ranges::fill(into, std::byte{0xff}); // DMA to a device's region goes nowhere
    return into.size();
}

std::size_t TracedProgram::write(std::uint64_t address, std::span<const std::byte> from) {
    if (from.empty())
        return 0;
    auto* const bytes = const_cast<std::byte*>(from.data()); // only read
    const std::size_t last = std::min<std::size_t>(from.size(), 8);
    const std::array local = {iovec{bytes, from.size() - last},
                              iovec{bytes + from.size() - last, last}};
    const ssize_t done = transfer(::process_vm_writev, process_, local, address, from.size());
    if (done > 0)
        return static_cast<std::size_t>(done);
    return is_region(address) ? from.size() : 0;
}

int TracedProgram::duplicate(int descriptor) {
    const auto copy = static_cast<int>(::syscall(SYS_pidfd_getfd, handle_.get(), descriptor, 0));
    if (copy < 0 && errno != EBADF && !warned_.exchange(true))
        print_line(std::string("interrupts do not reach the program: this machine or its container "
                               "refuses pidfd_getfd: ") +
                   std::strerror(errno));
    return copy;
}

File TracedProgram::file_of(int descriptor) {
    const auto open = files_.find(process_, descriptor);
    return open && open->process == process_ ? open->file : File::none;
}

/// Whether a call lies before it.
bool TracedProgram::is_return_address(std::uintptr_t address) {
    constexpr std::size_t longest = 7;
    std::array<std::byte, longest> code{};
    if (address < longest || read(address - longest, code) != code.size())
        return false;
    constexpr std::byte direct{0xe8};
    constexpr std::byte indirect{0xff};
    if (code[longest - 5] == direct)
        return true;
    for (const std::size_t bytes : {2U, 3U, 4U, 6U, 7U})
        if (code[longest - bytes] == indirect &&
            (code[longest - bytes + 1] & std::byte{0x38}) == std::byte{0x10})
            return true;
    return false;
}

/// The chain of frame pointers. A system call is mostly made by a function of libc without one: the
/// nearest return address on the stack is then its own.
std::size_t TracedProgram::stack(std::span<std::uintptr_t> frames) {
    if (serving_ == nullptr || frames.empty())
        return 0;
    std::size_t count = 0;
    const auto add = [&](std::uintptr_t address) { frames[count++] = address; };
    // Symbols are looked up before a return address.
    add(serving_->instruction_pointer() + (is_fault_ ? 1 : 0));
    std::array<std::uintptr_t, 24> words{};
    const std::size_t bytes =
        is_fault_ ? 0 : read(serving_->stack_pointer(), std::as_writable_bytes(std::span(words)));
    const auto on_stack = std::span(words).first(bytes / sizeof words[0]);
    const auto caller = std::ranges::find_if(
        on_stack, [this](std::uintptr_t each) { return is_return_address(each); });
    if (caller != on_stack.end() && count != frames.size())
        add(*caller);
    std::uintptr_t frame = serving_->frame_pointer();
    std::uintptr_t below = serving_->stack_pointer();
    constexpr std::uintptr_t largest_frame = 8 << 20;
    while (count != frames.size() && frame >= below && frame - below < largest_frame) {
        std::array<std::uintptr_t, 2> saved{}; // the caller's frame pointer, the return address
        if (read(frame, std::as_writable_bytes(std::span(saved))) != sizeof saved ||
            !is_return_address(saved[1]))
            break;
        if (saved[1] != frames[count - 1])
            add(saved[1]);
        below = frame + sizeof saved;
        frame = saved[0];
    }
    return count;
}

std::uint64_t TracedProgram::thread() {
    return static_cast<std::uint64_t>(serving_ != nullptr ? serving_->number() : process_);
}

std::uint64_t TracedProgram::process() {
    return static_cast<std::uint64_t>(process_);
}

void TracedProgram::symbolise(std::uintptr_t address, FunctionRef<void(const StackFrame&)> sink) {
    symbolise_in(process_, address, sink);
}

void TracedProgram::print(std::string_view text) {
    while (!text.empty()) {
        const ssize_t done = ::write(STDERR_FILENO, text.data(), text.size());
        if (done <= 0)
            return;
        text.remove_prefix(static_cast<std::size_t>(done));
    }
}

} // namespace moat::run
