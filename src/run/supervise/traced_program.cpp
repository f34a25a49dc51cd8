// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/traced_program.hpp"

#include "run/supervise/program_symbols.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
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
      memory_(process), files_(files), options_(options), stacks_(process) {}

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
    const auto mapped = memory_.at(address);
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
    if (copy < 0 && errno != EBADF)
        print_line(std::string("interrupts do not reach the program: this machine or its container "
                               "refuses pidfd_getfd: ") +
                   std::strerror(errno));
    std::error_code error;
    const auto file = std::filesystem::read_symlink(descriptor_path(::getpid(), copy), error);
    if (!error && file == "anon_inode:[eventfd]")
        return copy;
    ::close(copy); // a write to another file could end or stop the supervisor
    return -1;
}

File TracedProgram::file_of(int descriptor) {
    const auto open = files_.find(process_, descriptor);
    return open && open->process == process_ ? open->file : File::none;
}

fault::StackView TracedProgram::stack(Stacks& stacks) {
    if (serving_ == nullptr)
        return {};
    const std::uint64_t bottom = serving_->stack_pointer();
    std::array<std::uint64_t, 256> lowest; // NOLINT(*-member-init): read below
    const std::size_t copied = read(bottom, std::as_writable_bytes(std::span(lowest)));
    const auto number_at = [&](std::uint64_t address) -> std::optional<std::uint64_t> {
        std::uint64_t number = 0;
        const auto into = std::as_writable_bytes(std::span(&number, 1));
        if (copied >= sizeof number && address - bottom <= copied - sizeof number)
            std::memcpy(&number, std::as_bytes(std::span(lowest)).data() + (address - bottom),
                        sizeof number);
        else if (read(address, into) != sizeof number)
            return std::nullopt;
        return number;
    };
    std::array<std::uintptr_t, 32> frames{};
    const std::size_t count = stacks_.take(*serving_, number_at, frames);
    frames[0] += is_fault_ ? 1 : 0; // symbols are looked up before a return address
    return stacks.keep(std::span(frames).first(count));
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
