// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/userspace-api/seccomp_filter.rst.
#include "run/supervise/call_filter.hpp"

#include "run/supervise/path_calls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace moat::run {

namespace {

/// A call that stops if this argument is a descriptor of VFIO.
struct OnDescriptor {
    long call;
    unsigned argument;
};

constexpr std::array<OnDescriptor, 18> on_descriptor = {{{SYS_pread64, 0},
                                                         {SYS_pwrite64, 0},
                                                         {SYS_read, 0},
                                                         {SYS_write, 0},
                                                         {SYS_preadv, 0},
                                                         {SYS_pwritev, 0},
                                                         {SYS_preadv2, 0},
                                                         {SYS_pwritev2, 0},
                                                         {SYS_readv, 0},
                                                         {SYS_writev, 0},
                                                         {SYS_lseek, 0},
                                                         {SYS_dup, 0},
                                                         {SYS_dup2, 0},
                                                         {SYS_dup3, 0},
                                                         {SYS_fcntl, 0},
                                                         {SYS_fstat, 0},
                                                         {SYS_newfstatat, 0},
                                                         {SYS_mmap, 4}}};

constexpr std::uint32_t vfio_magic = 0x3b00; ///< ';', of iommufd, too

class Program {
  public:
    void load(std::size_t offset) {
        add(BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset));
    }

    void load_argument(unsigned index) {
        load(offsetof(seccomp_data, args) + 8 * index); // its low half
    }

    void mask(std::uint32_t bits) { add(BPF_ALU | BPF_AND | BPF_K, 0, 0, bits); }

    /// Skips the next `count` instructions unless the loaded number is `value`.
    void skip_unless(std::uint32_t value, std::uint8_t count) {
        add(BPF_JMP | BPF_JEQ | BPF_K, 0, count, value);
    }

    void skip_if(std::uint32_t value, std::uint8_t count) {
        add(BPF_JMP | BPF_JEQ | BPF_K, count, 0, value);
    }

    void skip_if_below(std::uint32_t value, std::uint8_t count) {
        add(BPF_JMP | BPF_JGE | BPF_K, 0, count, value);
    }

    void skip_unless_below(std::uint32_t value, std::uint8_t count) {
        add(BPF_JMP | BPF_JGE | BPF_K, count, 0, value);
    }

    void stop() { add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRACE); }

    void allow() { add(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW); }

    [[nodiscard]] sock_fprog get() {
        return {static_cast<unsigned short>(code_.size()), code_.data()};
    }

    [[nodiscard]] const std::vector<sock_filter>& code() const { return code_; }

    /// Allows what is not of this machine, and loads the call's number.
    void begin() {
        load(offsetof(seccomp_data, arch));
        skip_if(AUDIT_ARCH_X86_64, 1);
        allow();
        load(offsetof(seccomp_data, nr));
    }

  private:
    void add(int operation, std::uint8_t if_true, std::uint8_t if_false, std::uint32_t number) {
        code_.push_back({static_cast<std::uint16_t>(operation), if_true, if_false, number});
    }

    std::vector<sock_filter> code_;
};

[[nodiscard]] Program make_program(std::uint32_t first_descriptor, bool all_paths) {
    Program program;
    program.begin();
    const auto stop_at = [&](long call) {
        program.skip_unless(static_cast<std::uint32_t>(call), 1);
        program.stop();
    };
    stop_at(SYS_exit_group);
    for (const PathCall& each : path_calls)
        if (each.opens || all_paths)
            stop_at(each.call);
    program.skip_unless(SYS_ioctl, 5);
    program.load_argument(1);
    program.mask(0xff00);
    program.skip_unless(vfio_magic, 1);
    program.stop();
    program.allow();
    for (const OnDescriptor& each : on_descriptor) {
        program.skip_unless(static_cast<std::uint32_t>(each.call), 5);
        program.load_argument(each.argument);
        program.skip_if_below(first_descriptor, 2);
        program.skip_unless_below(0x8000'0000, 1); // a negative one
        program.stop();
        program.allow();
    }
    program.allow();
    return program;
}

} // namespace

int first_vfio_descriptor() {
    constexpr rlim_t most = 1 << 16;
    rlimit limit{};
    (void)::getrlimit(RLIMIT_NOFILE, &limit);
    const rlim_t end = std::min(limit.rlim_cur, most);
    return static_cast<int>(end - end / 4);
}

std::vector<sock_filter> filter_of(int descriptor) {
    Program program;
    program.begin();
    for (const OnDescriptor& each : on_descriptor) {
        program.skip_unless(static_cast<std::uint32_t>(each.call), 4);
        program.load_argument(each.argument);
        program.skip_unless(static_cast<std::uint32_t>(descriptor), 1);
        program.stop();
        program.allow();
    }
    program.allow();
    return program.code();
}

std::expected<void, std::string> stop_at_calls(int first_descriptor, bool all_paths) {
    Program program = make_program(static_cast<std::uint32_t>(first_descriptor), all_paths);
    const sock_fprog code = program.get();
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &code) != 0)
        return std::unexpected(std::string("--supervise needs seccomp filters, which this machine "
                                           "or its container refuses: ") +
                               std::strerror(errno));
    return {};
}

} // namespace moat::run
