// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernel_log.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <system_error>
#include <unistd.h>

namespace moat::watch {

namespace {

constexpr std::size_t longest_record = 8192; // Linux, PRINTKRB_RECORD_MAX and its dictionary

} // namespace

std::optional<KernelLogLine> parse_log_record(std::string_view record) {
    const std::size_t text_at = record.find(';');
    const std::size_t number_at = record.find(',');
    if (text_at == std::string_view::npos || number_at > text_at)
        return std::nullopt;
    const std::size_t time_at = record.find(',', number_at + 1) + 1;
    std::uint64_t microseconds = 0;
    const auto [end, error] =
        std::from_chars(record.data() + time_at, record.data() + text_at, microseconds);
    if (time_at == 0 || time_at > text_at || error != std::errc() ||
        microseconds > ~std::uint64_t{0} / 1000)
        return std::nullopt;
    std::string_view text = record.substr(text_at + 1);
    text = text.substr(0, text.find('\n')); // what follows describes the device
    return KernelLogLine{.time_ns = microseconds * 1000, .text = std::string(text)};
}

std::optional<std::string> read_kernel_log(const std::filesystem::path& root) {
    const platform::FileDescriptor file(
        ::open((root / "dev/kmsg").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (file.get() < 0)
        return std::nullopt;
    std::string log;
    std::array<char, longest_record> record{};
    for (;;) {
        const ssize_t got = ::read(file.get(), record.data(), record.size());
        if (got > 0)
            log.append(record.data(), static_cast<std::size_t>(got));
        else if (got == 0 || (errno != EPIPE && errno != EINTR))
            return log;
    }
}

KernelLog::KernelLog(const std::filesystem::path& root)
    : file_(::open((root / "dev/kmsg").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC)) {
    if (file_.get() >= 0)
        ::lseek(file_.get(), 0, SEEK_END);
}

std::optional<KernelLogLine> KernelLog::next() {
    std::array<char, longest_record> record{};
    while (file_.get() >= 0) {
        const ssize_t got = ::read(file_.get(), record.data(), record.size());
        if (got < 0 && (errno == EPIPE || errno == EINTR)) // EPIPE: overwritten before it was read
            continue;
        if (got <= 0)
            return std::nullopt;
        if (auto line = parse_log_record({record.data(), static_cast<std::size_t>(got)}))
            return line;
    }
    return std::nullopt;
}

} // namespace moat::watch
