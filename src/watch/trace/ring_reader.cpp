// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "ring_reader.hpp"

#include "record_reader.hpp"
#include "trace_files.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <optional>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace moat::watch {

namespace fs = std::filesystem;

namespace {

/// A record gets its time before it becomes readable, and its stack after it: within this time,
/// unless an interrupt or a hypervisor takes longer.
constexpr std::uint64_t settle_ns = 10'000'000;
/// Of one CPU in one call: bounds the memory for a ring that was never read before.
constexpr unsigned most_pages = 4096;
constexpr std::uint64_t no_limit = ~std::uint64_t{0};

/// The clock in brackets of "[local] global mono".
std::string chosen_clock(std::string_view clocks) {
    const std::size_t start = clocks.find('[');
    if (start == std::string_view::npos)
        return {};
    return std::string(clocks.substr(start + 1, clocks.find(']', start) - start - 1));
}

std::optional<clockid_t> system_clock_of(std::string_view clock) {
    for (const auto& [name, number] :
         {std::pair<std::string_view, clockid_t>{"mono", CLOCK_MONOTONIC},
          {"mono_raw", CLOCK_MONOTONIC_RAW},
          {"boot", CLOCK_BOOTTIME},
          {"tai", CLOCK_TAI}})
        if (clock == name)
            return number;
    return std::nullopt;
}

/// "now ts:    11.859998" of a CPU's stats, in seconds.
std::uint64_t time_in_stats(const fs::path& stats) {
    const std::string text = read_file(stats).value_or("");
    const std::size_t at = text.find("now ts:");
    if (at == std::string::npos)
        return 0;
    const std::size_t digits = std::min(text.find_first_not_of(' ', at + 7), text.size());
    std::uint64_t seconds = 0;
    std::uint64_t microseconds = 0;
    const char* const end = text.data() + text.size();
    const auto whole = std::from_chars(text.data() + digits, end, seconds);
    if (whole.ec == std::errc() && whole.ptr != end)
        std::from_chars(whole.ptr + 1, end, microseconds);
    return seconds * 1'000'000'000 + microseconds * 1000;
}

} // namespace

std::expected<RingReader, std::string> RingReader::open(const fs::path& instance,
                                                        const PageLayout& layout) {
    RingReader reader;
    reader.layout_ = layout;
    reader.page_.resize(layout.page_bytes());
    reader.clock_ = chosen_clock(read_file(instance / "trace_clock").value_or(""));
    static constexpr std::array<std::string_view, 3> other = {"local", "global", "perf"};
    if (!system_clock_of(reader.clock_) && std::ranges::find(other, reader.clock_) == other.end())
        return std::unexpected("the clock \"" + reader.clock_ + "\" of " + instance.string() +
                               " does not count nanoseconds; write mono to its trace_clock");
    for (const std::string& name : names_in(instance / "per_cpu")) {
        Cpu cpu{.stats = instance / "per_cpu" / name / "stats"};
        const auto [end, error] =
            std::from_chars(name.data() + std::min<std::size_t>(3, name.size()),
                            name.data() + name.size(), cpu.number);
        if (!name.starts_with("cpu") || error != std::errc() || cpu.number >= 1U << 16)
            continue;
        const fs::path file = instance / "per_cpu" / name / "trace_pipe_raw";
        cpu.pages =
            platform::FileDescriptor(::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        if (cpu.pages.get() < 0)
            return std::unexpected("cannot open " + file.string() + ": " + std::strerror(errno) +
                                   "; run as root");
        reader.cpus_.push_back(std::move(cpu));
    }
    if (reader.cpus_.empty())
        return std::unexpected("no rings in " + (instance / "per_cpu").string() +
                               "; is tracefs mounted there?");
    return reader;
}

Result<std::uint64_t> RingReader::read(const EventCatalog& catalog, TimeOrder& order) {
    const std::uint64_t now = now_ns();
    std::uint64_t cut = now > settle_ns ? now - settle_ns : 0;
    for (const Cpu& cpu : cpus_) {
        const auto limit = read_cpu(cpu, catalog, order);
        if (!limit)
            return limit;
        cut = std::min(cut, *limit);
    }
    return cut;
}

Result<std::uint64_t> RingReader::read_cpu(const Cpu& cpu, const EventCatalog& catalog,
                                           TimeOrder& order) {
    std::uint64_t last_ns = 0;
    const auto on_loss = [&](const PageLoss& loss) {
        order.add({.time_ns = loss.time_ns, .cpu = cpu.number, .lost = loss.count});
    };
    const auto on_record = [&](const RingRecord& record) {
        last_ns = std::max(last_ns, record.time_ns);
        add_ring_record(order, catalog, cpu.number, record);
    };
    for (unsigned pages = 0; pages != most_pages; ++pages) {
        const ssize_t got = ::read(cpu.pages.get(), page_.data(), page_.size());
        if (got == 0 || (got < 0 && errno == EAGAIN))
            return no_limit;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return platform::fail_errno("cannot read a CPU's trace ring; was its instance removed?",
                                        ErrorCode::io, {"cpu", cpu.number});
        decode_page(std::span(page_).first(static_cast<std::size_t>(got)), layout_, on_loss,
                    on_record);
    }
    return last_ns;
}

unsigned RingReader::cpus() const {
    unsigned count = 0;
    for (const Cpu& cpu : cpus_)
        count = std::max(count, cpu.number + 1);
    return count;
}

std::vector<int> RingReader::descriptors() const {
    std::vector<int> numbers;
    for (const Cpu& cpu : cpus_)
        numbers.push_back(cpu.pages.get());
    return numbers;
}

std::uint64_t RingReader::now_ns() const {
    const auto clock = system_clock_of(clock_);
    if (!clock)
        return time_in_stats(cpus_.front().stats);
    timespec now{};
    ::clock_gettime(*clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

} // namespace moat::watch
