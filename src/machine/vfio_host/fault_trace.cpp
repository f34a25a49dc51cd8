// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/trace/ftrace.rst ("Instances", trace_pipe) and events.rst.
#include "machine/vfio_host/fault_trace.hpp"

#include <array>
#include <atomic>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>

namespace moat::machine::vfio_host {
namespace {

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

} // namespace moat::machine::vfio_host
