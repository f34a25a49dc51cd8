// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/terminal/output.hpp"

#include "command/terminal/terminal.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

namespace moat::tools {

namespace {

bool was_closed = false;
std::unique_ptr<WrappingBuffer> output_buffer;
std::unique_ptr<WrappingBuffer> error_buffer;

/// The next opened file would get a closed descriptor below 3. The replacement for it
/// fails every read or write, as a closed one does.
[[nodiscard]] bool occupy(int descriptor, int flags) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF)
        return false;
    const int nothing = ::open("/dev/null", flags); // the lowest that is free
    if (nothing >= 0 && nothing != descriptor) {
        ::dup2(nothing, descriptor);
        ::close(nothing);
    }
    return true;
}

/// Return: 0, or the errno of an attempt to open `file` for writing.
[[nodiscard]] int writing_error(const std::string& file) {
    struct stat about{};
    if (::stat(file.c_str(), &about) == 0 && !S_ISREG(about.st_mode)) {
        if (S_ISDIR(about.st_mode))
            return EISDIR;
        return ::access(file.c_str(), W_OK) == 0 ? 0 : errno; // opening a pipe would wait
    }
    int opened = ::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (opened >= 0)
        ::unlink(file.c_str());
    else if (errno == EEXIST)
        opened = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (opened < 0)
        return errno;
    ::close(opened);
    return 0;
}

} // namespace

void begin_output() {
    (void)occupy(STDIN_FILENO, O_WRONLY);
    was_closed = occupy(STDOUT_FILENO, O_RDONLY);
    (void)occupy(STDERR_FILENO, O_RDONLY);
    const auto wrap = [](std::ostream& stream, int descriptor, auto& buffer) {
        buffer = std::make_unique<WrappingBuffer>(*stream.rdbuf(), terminal_columns(descriptor));
        stream.rdbuf(buffer.get());
    };
    wrap(std::cout, STDOUT_FILENO, output_buffer);
    wrap(std::cerr, STDERR_FILENO, error_buffer);
    std::cerr << std::nounitbuf; // a word may come in pieces; each line is written at once
}

bool output_works() {
    if (was_closed)
        std::cout.setstate(std::ios::badbit);
    return std::cout.good();
}

Exit finish_output(Exit exit) {
    std::cout.flush();
    const int reason = output_buffer->error();
    const bool failed = !std::cout;
    if (failed)
        std::cerr << "moat: cannot write standard output"
                  << (was_closed    ? ": it is closed"
                      : reason != 0 ? std::string(": ") + std::strerror(reason)
                                    : "")
                  << '\n';
    std::cerr.flush();
    // The streams outlive the buffers.
    std::cout.rdbuf(&output_buffer->inner());
    std::cerr.rdbuf(&error_buffer->inner());
    return failed ? Exit::bound : exit;
}

void require_output(const char* who, std::initializer_list<std::string> files) {
    if (!output_works())
        throw Stop{Exit::bound, ""};
    for (const std::string& file : files)
        if (const int error = file.empty() ? 0 : writing_error(file); error != 0)
            throw Stop{Exit::bound,
                       std::string(who) + ": cannot write " + file + ": " + std::strerror(error)};
}

bool write_file(const char* who, const std::string& file, const std::string& text) {
    std::ofstream out(file, std::ios::binary);
    out << text;
    out.close();
    if (!out)
        std::cerr << who << ": " << file << ": the file was written incompletely\n";
    return static_cast<bool>(out);
}

std::string text_of(const nlohmann::ordered_json& data) {
    return data.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace moat::tools
