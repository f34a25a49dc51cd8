// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/call.hpp"

#include "run/region_transfer.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

namespace moat::run {

namespace {

/// One call of one thread.
class Call {
  public:
    Call(StoppedThread& thread, TracedProgram& program, OpenFiles& files, int first_descriptor)
        : thread_(thread), program_(program), files_(files), first_descriptor_(first_descriptor) {}

    void serve() {
        switch (thread_.call()) {
        case SYS_open:
            return open(AT_FDCWD, thread_.argument(0), thread_.argument(1));
        case SYS_openat:
            return open(descriptor(0), thread_.argument(1), thread_.argument(2));
        case SYS_openat2:
            return open(descriptor(0), thread_.argument(1), number_at(thread_.argument(2)));
        case SYS_exit_group:
            return program_.finish();
        case SYS_ioctl:
        case SYS_mmap:
        case SYS_dup:
        case SYS_fcntl:
        default:
            return serve_file();
        }
    }

  private:
    [[nodiscard]] int descriptor(unsigned argument) const {
        return static_cast<int>(thread_.argument(argument));
    }

    [[nodiscard]] std::uint64_t number_at(std::uint64_t address) {
        std::uint64_t number = 0;
        (void)program_.read(address, std::as_writable_bytes(std::span(&number, 1)));
        return number;
    }

    [[nodiscard]] std::string text_at(std::uint64_t address) {
        std::array<char, PATH_MAX> text; // NOLINT(*-member-init): read below
        const std::size_t size = program_.read(address, std::as_writable_bytes(std::span(text)));
        return {text.data(), std::ranges::find(std::span(text).first(size), '\0').base()};
    }

    /// As the program sees it: from its folder, or that of `folder`.
    [[nodiscard]] std::string absolute(int folder, const std::string& path) const {
        namespace fs = std::filesystem;
        if (path.starts_with('/'))
            return fs::path(path).lexically_normal().string();
        std::error_code error;
        const fs::path base = fs::read_symlink(
            folder == AT_FDCWD ? "/proc/" + std::to_string(thread_.number()) + "/cwd"
                               : descriptor_path(program_.number(), folder),
            error);
        return error ? path : (base / path).lexically_normal().string();
    }

    [[nodiscard]] static bool is_vfio(const std::string& path) {
        return path.starts_with("/dev/vfio/") || path == "/dev/iommu";
    }

    void open(int folder, std::uint64_t path, std::uint64_t flags) {
        const std::string name = absolute(folder, text_at(path));
        if (!is_vfio(name))
            return;
        const Answer answer = program_.session().open(name);
        if (answer.value < 0)
            return thread_.answer(answer.value);
        if (answer.opened != File::none)
            give_descriptor(answer.opened, path, (flags & O_CLOEXEC) != 0);
    }

    /// `name`: a string of the program's.
    void give_descriptor(File file, std::uint64_t name, bool close_on_exec) {
        const std::int64_t made = [&] {
            BorrowedThread borrowed(thread_);
            const std::int64_t low =
                borrowed.call(SYS_memfd_create, {name, MFD_ALLOW_SEALING | MFD_CLOEXEC});
            if (low < 0)
                return low;
            const auto number = static_cast<std::uint64_t>(low);
            // It stays empty: each access of a mapping is a fault.
            (void)borrowed.call(SYS_fcntl,
                                {number, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL});
            const std::int64_t high = borrowed.call(
                SYS_fcntl,
                {number, static_cast<std::uint64_t>(close_on_exec ? F_DUPFD_CLOEXEC : F_DUPFD),
                 static_cast<std::uint64_t>(first_descriptor_)});
            (void)borrowed.call(SYS_close, {number});
            return high == -EINVAL ? -EMFILE : high;
        }();
        if (made < 0 || !files_.add(program_.number(), static_cast<int>(made), file))
            program_.session().close(file);
        thread_.answer(made);
    }

    void serve_file() {
        const auto open =
            files_.find(program_.number(), descriptor(thread_.call() == SYS_mmap ? 4 : 0));
        if (!open)
            return;
        if (thread_.call() == SYS_dup)
            return duplicate(F_DUPFD, 0);
        if (thread_.call() == SYS_fcntl)
            return control();
        if (open->process != program_.number() || program_.session_if_any() == nullptr)
            return refuse_inherited();
        switch (thread_.call()) {
        case SYS_ioctl:
            return ioctl(*open);
        case SYS_mmap:
            return map(*open);
        case SYS_lseek:
            return thread_.answer(-ESPIPE);
        default:
            return transfer(*open);
        }
    }

    void refuse_inherited() {
        if (thread_.call() == SYS_ioctl)
            program_.print_line(
                "a process uses a VFIO file that it inherited from the process that "
                "forked it; open the file again in the child");
        thread_.answer(-ENODEV);
    }

    void control() {
        const auto command = static_cast<int>(thread_.argument(1));
        if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
            duplicate(command, thread_.argument(2));
    }

    /// The duplicate's number is high, too.
    void duplicate(int command, std::uint64_t least) {
        const auto first = std::max(least, static_cast<std::uint64_t>(first_descriptor_));
        const std::int64_t made = BorrowedThread(thread_).call(
            SYS_fcntl, {thread_.argument(0), static_cast<std::uint64_t>(command), first});
        thread_.answer(made);
    }

    void ioctl(const OpenFile& open) {
        const std::uint64_t argument = thread_.argument(2);
        const Answer answer = program_.session().ioctl(
            open.file, static_cast<unsigned>(thread_.argument(1)), argument);
        if (answer.opened != File::none)
            return give_descriptor(answer.opened, argument, true); // the device's name
        thread_.answer(answer.value);
    }

    /// The kernel maps the memory file.
    void map(const OpenFile& open) {
        constexpr std::uint64_t page = 4096;
        const std::uint64_t bytes = (thread_.argument(1) + page - 1) & ~(page - 1);
        const auto flags = static_cast<int>(thread_.argument(3));
        if ((flags & MAP_ANONYMOUS) != 0)
            return;
        if ((flags & MAP_TYPE) != MAP_SHARED ||
            !program_.session().window(open.file, thread_.argument(5), bytes))
            thread_.answer(-EINVAL);
    }

    void transfer(const OpenFile& open) {
        const long call = thread_.call();
        const bool is_read = call == SYS_pread64 || call == SYS_read || call == SYS_preadv ||
                             call == SYS_preadv2 || call == SYS_readv;
        const bool has_offset =
            call != SYS_read && call != SYS_write && call != SYS_readv && call != SYS_writev;
        const bool has_pieces =
            call != SYS_read && call != SYS_write && call != SYS_pread64 && call != SYS_pwrite64;
        const std::uint64_t offset = has_offset ? thread_.argument(3) : open.position;
        std::int64_t done = 0;
        for (const iovec& piece : has_pieces ? pieces() : single_piece()) {
            const auto memory = reinterpret_cast<std::uint64_t>(piece.iov_base);
            const std::uint64_t at = offset + static_cast<std::uint64_t>(done);
            const std::int64_t moved = is_read ? read_region(program_.session(), program_,
                                                             open.file, memory, piece.iov_len, at)
                                               : write_region(program_.session(), program_,
                                                              open.file, memory, piece.iov_len, at);
            if (moved < 0 && done == 0)
                return thread_.answer(moved);
            done += std::max<std::int64_t>(moved, 0);
            if (static_cast<std::uint64_t>(std::max<std::int64_t>(moved, 0)) != piece.iov_len)
                break;
        }
        if (!has_offset)
            files_.set_position(open.identity, offset + static_cast<std::uint64_t>(done));
        thread_.answer(done);
    }

    [[nodiscard]] std::vector<iovec> single_piece() const {
        return {{reinterpret_cast<void*>(thread_.argument(1)), thread_.argument(2)}};
    }

    [[nodiscard]] std::vector<iovec> pieces() {
        std::vector<iovec> all(std::min<std::uint64_t>(thread_.argument(2), IOV_MAX));
        const std::size_t bytes =
            program_.read(thread_.argument(1), std::as_writable_bytes(std::span(all)));
        all.resize(bytes / sizeof(iovec));
        return all;
    }

    StoppedThread& thread_;
    TracedProgram& program_;
    OpenFiles& files_;
    int first_descriptor_;
};

} // namespace

void serve_call(StoppedThread& thread, TracedProgram& program, OpenFiles& files,
                int first_descriptor) {
    program.serve(&thread, false);
    Call(thread, program, files, first_descriptor).serve();
    program.serve(nullptr, false);
}

} // namespace moat::run
