// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/ABI/testing/dev-kmsg.
#include "machine/vfio_host/fault_log.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fcntl.h>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <string_view>

namespace moat::machine::vfio_host {
namespace {

/// The longest record of /dev/kmsg; a shorter buffer gets nothing.
constexpr std::size_t longest_record = 8192;

/// Converts "6,123,4567890,-;text" and property lines to dmesg's format, whose time the decoder
/// knows.
std::string as_printed(std::string_view record) {
    const std::size_t semicolon = record.find(';');
    if (semicolon == record.npos)
        return {};
    const std::string_view head = record.substr(0, semicolon);
    std::string_view text = record.substr(semicolon + 1);
    text = text.substr(0, text.find('\n'));
    std::uint64_t microseconds = 0;
    const std::size_t second = head.find(',', head.find(',') + 1);
    if (second != head.npos)
        std::from_chars(head.data() + second + 1, head.data() + head.size(), microseconds);
    const std::string below = std::to_string(microseconds % 1'000'000);
    return "[" + std::to_string(microseconds / 1'000'000) + "." +
           std::string(6 - below.size(), '0') + below + "] " + std::string(text);
}

std::string content(const std::string& file) {
    std::ifstream in(file);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

} // namespace

std::optional<std::uint64_t> count_fault_interrupts(const std::string& interrupts) {
    std::optional<std::uint64_t> count;
    std::istringstream lines(interrupts);
    std::string line;
    while (std::getline(lines, line)) {
        // "25:  0  3  DMAR-MSI  0-edge  dmar0"; page requests have lines of their own.
        const std::size_t end = line.find("DMAR-MSI");
        if (end == line.npos || line.find("prq") != line.npos)
            continue;
        std::istringstream numbers(line.substr(0, end));
        std::string number;
        numbers >> number; // the interrupt's own number
        std::uint64_t of_processor = 0;
        while (numbers >> of_processor)
            count = count.value_or(0) + of_processor;
    }
    return count;
}

Result<FaultLog> FaultLog::open() {
    platform::FileDescriptor log(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (log.get() < 0)
        return platform::fail_errno("cannot read faults from the kernel's log: run as root, or set "
                                    "kernel.dmesg_restrict=0",
                                    errno == ENOENT ? ErrorCode::not_found : ErrorCode::refused);
    if (::lseek(log.get(), 0, SEEK_END) < 0)
        return platform::fail_errno("cannot seek the kernel's log");
    return FaultLog(std::move(log), "/proc/interrupts");
}

FaultLog::FaultLog(platform::FileDescriptor log, std::string interrupts)
    : log_(std::move(log)), interrupts_(std::move(interrupts)),
      interrupts_before_(count_fault_interrupts(content(interrupts_))),
      interrupts_now_(interrupts_before_) {}

Result<std::uint64_t> FaultLog::take(fault::Decoder::Sink each,
                                     std::chrono::milliseconds patience) {
    const auto count_and_hand_out = [&](const fault::LogEvent& decoded) {
        suppressed_ += decoded.record.suppressed;
        if (decoded.kind == fault::LogEvent::Kind::fault)
            seen_ += decoded.record.precision != fault::Precision::none ? 1 : 0;
        each(decoded);
    };
    const auto until = std::chrono::steady_clock::now() + patience;
    bool more = true;
    while (more) {
        const auto got = read_record(count_and_hand_out);
        if (!got)
            return std::unexpected(got.error());
        if (*got)
            continue;
        interrupts_now_ = count_fault_interrupts(content(interrupts_));
        more = lost() > told_ && wait_for_line(until);
    }
    decoder_.end(count_and_hand_out);
    const std::uint64_t lost_now = lost();
    const std::uint64_t news = lost_now - std::min(told_, lost_now);
    told_ += news;
    return news;
}

Result<bool> FaultLog::read_record(fault::Decoder::Sink count_and_hand_out) {
    std::array<char, longest_record> record;
    const ssize_t size = ::read(log_.get(), record.data(), record.size());
    if (size > 0) {
        decoder_.line(as_printed({record.data(), static_cast<std::size_t>(size)}),
                      count_and_hand_out);
        return true;
    }
    // The count of interrupts makes up for records that were overwritten.
    if (size < 0 && (errno == EPIPE || errno == EINTR))
        return true;
    if (size == 0 || errno == EAGAIN)
        return false;
    return platform::fail_errno("reading the kernel's log failed");
}

std::uint64_t FaultLog::lost() const {
    if (!interrupts_before_ || !interrupts_now_)
        return suppressed_;
    const std::uint64_t interrupts =
        *interrupts_now_ - std::min(*interrupts_before_, *interrupts_now_);
    return interrupts - std::min(seen_, interrupts);
}

bool FaultLog::wait_for_line(std::chrono::steady_clock::time_point until) const {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0)
        return false;
    pollfd log{.fd = log_.get(), .events = POLLIN, .revents = 0};
    return ::poll(&log, 1, static_cast<int>(left.count())) > 0;
}

} // namespace moat::machine::vfio_host
