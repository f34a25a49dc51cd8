// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/ABI/testing/dev-kmsg, Documentation/trace/ftrace.rst ("Instances",
// trace_pipe) and events.rst.
#include "machine/vfio_host/host_faults.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <sstream>
#include <sys/stat.h>
#include <vector>

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

namespace fs = std::filesystem;

constexpr std::string_view event = "events/iommu/io_page_fault";
constexpr std::string_view prefix = "moat-";

/// Instances ("moat-PID-N") outlive the process that created them.
void remove_orphans(const fs::path& instances) {
    std::error_code error;
    for (const auto& each : fs::directory_iterator(instances, error)) {
        const std::string name = each.path().filename().string();
        int process = 0;
        if (name.starts_with(prefix) &&
            std::from_chars(name.data() + prefix.size(), name.data() + name.size(), process).ec ==
                std::errc() &&
            process > 0 && ::kill(process, 0) < 0 && errno == ESRCH)
            ::rmdir(each.path().c_str());
    }
}

bool write_one(const fs::path& file) {
    std::ofstream out(file);
    return static_cast<bool>(out << "1\n" << std::flush);
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
        if (is_problem(decoded.kind) || decoded.kind == fault::LogEvent::Kind::suppressed)
            each(decoded);
    };
    const auto until = std::chrono::steady_clock::now() + patience;
    bool more = true;
    while (more) {
        MOAT_LET(const bool got, read_record(count_and_hand_out));
        if (got)
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

Result<FaultTrace> FaultTrace::open(std::string_view root) {
    std::error_code error;
    if (!fs::is_directory(fs::path(root) / event, error))
        return fail(ErrorCode::not_found, "no tracefs is mounted, or this kernel has no tracepoint "
                                          "of refused accesses");
    const fs::path instances = fs::path(root) / "instances";
    remove_orphans(instances);
    static std::atomic<unsigned> number{0};
    const fs::path instance =
        instances / (std::string(prefix) + std::to_string(::getpid()) + "-" +
                     std::to_string(number.fetch_add(1, std::memory_order_relaxed)));
    if (::mkdir(instance.c_str(), 0700) < 0)
        return platform::fail_errno("cannot create a trace instance",
                                    errno == EACCES || errno == EPERM ? ErrorCode::refused
                                                                      : ErrorCode::io);
    FaultTrace trace{platform::FileDescriptor(
        ::open((instance / "trace_pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC))};
    trace.instance_ = instance.string();
    if (trace.pipe_.get() < 0)
        return platform::fail_errno("cannot read the kernel's trace");
    if (!write_one(instance / event / "enable"))
        return platform::fail_errno("cannot enable the tracepoint iommu:io_page_fault");
    return trace;
}

FaultTrace::~FaultTrace() {
    pipe_.reset(); // an open instance cannot be removed
    if (!instance_.empty())
        ::rmdir(instance_.c_str());
}

Result<std::uint64_t> FaultTrace::take(fault::Decoder::Sink each) {
    std::uint64_t lost = 0;
    std::array<char, 4096> text;
    ssize_t size = 0;
    while ((size = ::read(pipe_.get(), text.data(), text.size())) > 0 ||
           (size < 0 && errno == EINTR)) {
        if (size < 0)
            continue;
        rest_.append(text.data(), static_cast<std::size_t>(size));
        std::size_t end = 0;
        while ((end = rest_.find('\n')) != rest_.npos) {
            lost += line(std::string_view(rest_).substr(0, end), each);
            rest_.erase(0, end + 1);
        }
        // No event is longer than this; drop it.
        if (rest_.size() > fault::Decoder::longest_line)
            rest_.clear();
    }
    if (size < 0 && errno != EAGAIN)
        return platform::fail_errno("reading the kernel's trace failed");
    return lost;
}

std::uint64_t FaultTrace::line(std::string_view text, fault::Decoder::Sink each) {
    // "CPU:1 [LOST 23 EVENTS]"
    constexpr std::string_view lost = "[LOST ";
    if (const std::size_t at = text.find(lost); text.starts_with("CPU:") && at != text.npos) {
        std::uint64_t count = 0;
        std::from_chars(text.data() + at + lost.size(), text.data() + text.size(), count);
        return count;
    }
    const auto keep_faults = [&](const fault::LogEvent& decoded) {
        if (decoded.kind != fault::LogEvent::Kind::fault)
            return;
        has_spoken_ = true;
        each(decoded);
    };
    fault::Decoder decoder; // an event is one line
    decoder.line(text, keep_faults);
    decoder.end(keep_faults);
    return 0;
}

Result<HostFaults> HostFaults::open() {
    MOAT_LET(FaultLog log, FaultLog::open());
    std::optional<FaultTrace> trace;
    if (auto opened = FaultTrace::open())
        trace.emplace(std::move(*opened));
    return HostFaults(std::move(log), std::move(trace));
}

Result<std::uint64_t> HostFaults::take(fault::Decoder::Sink each,
                                       std::chrono::milliseconds patience) {
    if (!trace_)
        return log_.take(each, patience);
    // The log first: its faults are in the trace by then.
    std::vector<fault::LogEvent> logged;
    const auto keep = [&](const fault::LogEvent& decoded) { logged.push_back(decoded); };
    const auto lost_by_log = log_.take(keep, patience);
    if (!lost_by_log)
        return lost_by_log;
    const auto lost_by_trace = trace_->take(each);
    if (!lost_by_trace || trace_->has_spoken())
        return lost_by_trace;
    for (const fault::LogEvent& decoded : logged)
        each(decoded);
    return lost_by_log;
}

} // namespace moat::machine::vfio_host
