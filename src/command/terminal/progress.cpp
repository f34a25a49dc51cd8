// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/terminal/progress.hpp"

#include "command/terminal/terminal.hpp"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <unistd.h>

namespace moat::tools {

namespace {

constexpr double first_after_seconds = 1;
constexpr double every_seconds = 0.2;

/// "0:04", "1:02:33"
[[nodiscard]] std::string clock_text(double seconds) {
    const auto whole = static_cast<std::uint64_t>(std::min(seconds + 0.5, 3.6e6));
    char text[32];
    if (whole >= 3600)
        std::snprintf(text, sizeof text, "%u:%02u:%02u", static_cast<unsigned>(whole / 3600),
                      static_cast<unsigned>(whole / 60 % 60), static_cast<unsigned>(whole % 60));
    else
        std::snprintf(text, sizeof text, "%u:%02u", static_cast<unsigned>(whole / 60),
                      static_cast<unsigned>(whole % 60));
    return text;
}

[[nodiscard]] std::string bar(double fraction, std::size_t columns) {
    const std::size_t cells = std::clamp<std::size_t>(columns / 4, 4, 20);
    const auto full = static_cast<std::size_t>(fraction * static_cast<double>(cells));
    return "[" + std::string(full, '=') + std::string(cells - full, ' ') + "] " +
           std::to_string(static_cast<int>(fraction * 100)) + " %";
}

} // namespace

std::string progress_line(const Reached& reached, double seconds, std::size_t columns) {
    const double fraction = std::min(reached.fraction, 1.0);
    // The last column stays free: a terminal may begin a new line behind it.
    const std::size_t room = columns - 1;
    std::string line(reached.what.size() <= room ? reached.what : "");
    bool is_full = false;
    const auto add = [&](std::string_view separator, const std::string& text) {
        const std::string more = std::string(line.empty() ? "" : separator) + text;
        is_full = is_full || line.size() + more.size() > room;
        line += is_full ? "" : more;
    };
    if (fraction >= 0)
        add(" ", bar(fraction, columns));
    add(", ", std::to_string(reached.count) + " " + std::string(reached.unit));
    if (seconds > 0)
        add(", ", std::to_string(
                      static_cast<std::uint64_t>(static_cast<double>(reached.count) / seconds)) +
                      "/s");
    if (fraction > 0)
        add(", ", clock_text(seconds * (1 - fraction) / fraction) + " left");
    if (!reached.remark.empty())
        add(", ", std::string(reached.remark));
    return line;
}

Progress::Progress(double limit_seconds)
    : limit_(limit_seconds), is_terminal_(::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
    clear();
}

bool Progress::operator()(Reached reached) {
    const double passed = seconds();
    if (is_terminal_ && passed >= first_after_seconds && passed - drawn_at_ >= every_seconds) {
        if (limit_ > 0)
            reached.fraction = std::max(reached.fraction, passed / limit_);
        std::cerr << "\r\033[K" << progress_line(reached, passed, terminal_columns(STDERR_FILENO))
                  << std::flush;
        drawn_at_ = passed;
        is_drawn_ = true;
    }
    return limit_ <= 0 || passed < limit_;
}

double Progress::seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void Progress::clear() {
    if (is_drawn_)
        std::cerr << "\r\033[K" << std::flush;
    is_drawn_ = false;
}

} // namespace moat::tools
