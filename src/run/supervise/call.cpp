// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/call.hpp"

#include "run/region_transfer.hpp"
#include "run/supervise/call_filter.hpp"
#include "run/supervise/path_calls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

namespace moat::run {

namespace {

/// One call of one thread.
class Call {
  public:
    Call(StoppedThread& thread, TracedProgram& program, OpenFiles& files, int first_descriptor)
        : thread_(thread), program_(program), files_(files), first_descriptor_(first_descriptor) {}

    void serve() {
        if (thread_.call() == SYS_exit_group)
            return program_.finish();
        const auto* const found = std::ranges::find(path_calls, thread_.call(), &PathCall::call);
        if (found != path_calls.end() && !is_on_descriptor(*found))
            return serve_path(*found);
        serve_file();
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

    /// fstat, as libc calls it today.
    [[nodiscard]] bool is_on_descriptor(const PathCall& call) {
        return call.call == SYS_newfstatat && text_at(thread_.argument(call.path)).empty();
    }

    void serve_path(const PathCall& call) {
        const std::uint64_t path = thread_.argument(call.path);
        const int folder =
            call.folder == no_folder ? AT_FDCWD : descriptor(static_cast<unsigned>(call.folder));
        const std::string text = text_at(path);
        if (text.empty())
            return;
        const std::string name = seen_path(absolute(folder, text), program_.options());
        if (call.opens && is_vfio(name))
            return open(name, path);
        if (const auto moved = redirected_path(name, program_.options()))
            redirect(call, *moved);
    }

    void open(const std::string& name, std::uint64_t path) {
        const Answer answer = program_.session().open(name);
        if (answer.value < 0)
            return thread_.answer(answer.value);
        if (answer.opened == File::none)
            return;
        const std::uint64_t flags = thread_.call() == SYS_open     ? thread_.argument(1)
                                    : thread_.call() == SYS_openat ? thread_.argument(2)
                                                                   : number_at(thread_.argument(2));
        give_descriptor(answer.opened, path, (flags & O_CLOEXEC) != 0);
    }

    /// Memory of the program's for arguments of its calls. Return: 0, -errno.
    [[nodiscard]] std::int64_t need_scratch(BorrowedThread& borrowed) {
        if (program_.scratch() != 0)
            return 0;
        const std::int64_t made =
            borrowed.call(SYS_mmap, {0, PATH_MAX, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS, ~std::uint64_t{0}, 0});
        if (made > 0)
            program_.set_scratch(static_cast<std::uint64_t>(made));
        return std::min<std::int64_t>(made, 0);
    }

    /// Lets the thread make the call with another path, in memory that it maps for that.
    void redirect(const PathCall& call, const std::string& path) {
        BorrowedThread borrowed(thread_);
        if (const std::int64_t error = need_scratch(borrowed); error != 0)
            return thread_.answer(error);
        const std::span<const char> text(path.c_str(), path.size() + 1);
        if (text.size() > PATH_MAX ||
            program_.write(program_.scratch(), std::as_bytes(text)) != text.size())
            return thread_.answer(-ENAMETOOLONG);
        BorrowedThread::Arguments arguments{};
        for (unsigned index = 0; index != arguments.size(); ++index)
            arguments[index] = thread_.argument(index);
        arguments[call.path] = program_.scratch();
        thread_.answer(borrowed.call(call.call, arguments));
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
        const bool inherited =
            open->process != program_.number() || program_.session_if_any() == nullptr;
        switch (thread_.call()) {
        case SYS_dup:
            return duplicate(F_DUPFD, 0);
        case SYS_dup2:
        case SYS_dup3:
            return duplicate_to();
        case SYS_fcntl:
            return control();
        case SYS_fstat:
            return inherited ? void() : show_device(*open, thread_.argument(1));
        case SYS_newfstatat:
            return inherited ? void() : show_device(*open, thread_.argument(2));
        default:
            return inherited ? refuse_inherited() : use(*open);
        }
    }

    void use(const OpenFile& open) {
        switch (thread_.call()) {
        case SYS_ioctl:
            return ioctl(open);
        case SYS_mmap:
            return map(open);
        case SYS_lseek:
            return thread_.answer(-ESPIPE);
        default:
            return transfer(open);
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

    /// To a number of the program's choice. The first filter does not stop calls on a low one.
    void duplicate_to() {
        const int to = descriptor(1);
        if (to < 0 || to >= first_descriptor_ || !program_.watch(to))
            return;
        BorrowedThread borrowed(thread_);
        if (const std::int64_t error = install_filter(borrowed, filter_of(to)); error != 0)
            return thread_.answer(error);
        thread_.answer(borrowed.call(
            thread_.call(), {thread_.argument(0), thread_.argument(1), thread_.argument(2)}));
    }

    /// In all threads of the program. Return: 0, -errno.
    [[nodiscard]] std::int64_t install_filter(BorrowedThread& borrowed,
                                              const std::vector<sock_filter>& code) {
        if (const std::int64_t error = need_scratch(borrowed); error != 0)
            return error;
        const std::uint64_t at = program_.scratch();
        const std::uint64_t code_at = at + sizeof(sock_fprog);
        const sock_fprog filter = {.len = static_cast<unsigned short>(code.size()),
                                   .filter = reinterpret_cast<sock_filter*>(code_at)};
        const auto head = std::as_bytes(std::span(&filter, 1));
        const auto body = std::as_bytes(std::span(code));
        if (program_.write(at, head) != head.size() || program_.write(code_at, body) != body.size())
            return -EFAULT;
        const std::int64_t installed =
            borrowed.call(SYS_seccomp, {SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, at});
        return installed > 0 ? -EBUSY : installed; // a thread has filters of its own
    }

    void ioctl(const OpenFile& open) {
        const std::uint64_t argument = thread_.argument(2);
        const Answer answer = program_.session().ioctl(
            open.file, static_cast<unsigned>(thread_.argument(1)), argument);
        if (answer.opened != File::none)
            return give_descriptor(answer.opened, argument, true); // the device's name
        thread_.answer(answer.value);
    }

    /// fstat shows a character device, numbered as in the tree of /sys.
    void show_device(const OpenFile& open, std::uint64_t into) {
        struct stat status = {};
        if (::stat(descriptor_path(program_.number(), descriptor(0)).c_str(), &status) != 0)
            return thread_.answer(-EBADF);
        constexpr unsigned major_number = 511;
        const auto device = program_.session().device_of(open.file);
        status.st_mode = S_IFCHR | S_IRUSR | S_IWUSR;
        status.st_rdev = device ? makedev(major_number, *device) : makedev(10, 196);
        const auto bytes = std::as_bytes(std::span(&status, 1));
        thread_.answer(program_.write(into, bytes) == bytes.size() ? 0 : -EFAULT);
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
