// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/own_client.hpp"

#include "run/preload/faults.hpp"
#include "run/preload/guarded_copy.hpp"
#include "run/preload/own_stack.hpp"
#include "run/preload/process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::run {

namespace {

/// A duplicate that programs do not meet: above the numbers that they use, below those that they
/// close one by one. -1 with errno.
[[nodiscard]] int duplicate_high(int descriptor) {
    rlimit limit{};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    const auto most = std::min<rlim_t>(limit.rlim_cur, Descriptors::most);
    int copy = static_cast<int>(
        syscall(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, static_cast<int>(most - most / 4)));
    if (copy < 0)
        copy = static_cast<int>(syscall(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, 3));
    if (copy >= 0)
        descriptors().add_own(copy);
    return copy;
}

[[nodiscard]] void* pointer(std::uint64_t address) {
    return reinterpret_cast<void*>(address); // NOLINT(performance-no-int-to-ptr)
}

/// The last 8 bytes with one store.
[[nodiscard]] std::size_t write_last_8_last(std::uint64_t address,
                                            std::span<const std::byte> from) {
    const std::size_t last = from.size() < 8 ? 0 : 8;
    const std::size_t first = from.size() - last;
    const std::size_t done = guarded_copy(pointer(address), from.data(), first);
    if (last == 0 || done != first)
        return done;
    const std::byte* const end = from.data() + first;
    return guarded_copy_8(pointer(address + first), end)
               ? from.size()
               : done + guarded_copy(pointer(address + first), end, last); // to the end of a page
}

} // namespace

OwnClient::OwnClient() : standard_error_(duplicate_high(STDERR_FILENO)) {}

std::size_t OwnClient::transfer(Transfer* function, std::span<std::byte> local,
                                std::uint64_t address) {
    const iovec own = {local.data(), local.size()};
    const iovec remote = {pointer(address), local.size()};
    const auto done = function(process_number(), &own, 1, &remote, 1, 0);
    if (done >= 0)
        return static_cast<std::size_t>(done);
    if (errno != EFAULT && !warned_.exchange(true))
        print_line("this container or sandbox does not permit process_vm_readv and "
                   "process_vm_writev, which a handler of SIGSEGV needs; permit both");
    return 0;
}

std::size_t OwnClient::read(std::uint64_t address, std::span<std::byte> into) {
    if (into.empty())
        return 0;
    const std::size_t done = catches_faults()
                                 ? guarded_copy(into.data(), pointer(address), into.size())
                                 : transfer(process_vm_readv, into, address);
    if (done == 0 && windows().overlaps(address, address + into.size())) {
        std::ranges::fill(into, std::byte{0xff}); // a device's region: DMA to it goes nowhere
        return into.size();
    }
    return done;
}

std::size_t OwnClient::write(std::uint64_t address, std::span<const std::byte> from) {
    if (from.empty())
        return 0;
    const std::size_t done =
        catches_faults()
            ? write_last_8_last(address, from)
            : transfer(process_vm_writev, {const_cast<std::byte*>(from.data()), from.size()},
                       address); // only read
    return done == 0 && windows().overlaps(address, address + from.size()) ? from.size() : done;
}

int OwnClient::duplicate(int descriptor) {
    return duplicate_high(descriptor);
}

File OwnClient::file_of(int descriptor) {
    return descriptors().find(descriptor).file;
}

fault::StackView OwnClient::stack(Stacks& stacks) {
    return own_stack(stacks);
}

std::uint64_t OwnClient::thread() {
    struct Known {
        pid_t number = 0;
        unsigned generation = 0;
    };

    static thread_local constinit Known known = {};
    if (known.number == 0 || known.generation != generation())
        known = {gettid(), generation()};
    return static_cast<std::uint64_t>(known.number);
}

void OwnClient::print(std::string_view text) {
    const int descriptor = standard_error_ >= 0 ? standard_error_ : STDERR_FILENO;
    while (!text.empty()) {
        const auto done = syscall(SYS_write, descriptor, text.data(), text.size());
        if (done <= 0)
            return;
        text.remove_prefix(static_cast<std::size_t>(done));
    }
}

} // namespace moat::run
