// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Progress: one line on standard error that overwrites itself, for work of more than a second. It
// shows nothing unless standard error is a terminal. audit, explore and stress report their
// progress to it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moat::tools {

struct Reached {
    std::string_view what = {};   ///< "nvme"; may be empty
    std::uint64_t count = 0;      ///< of units
    std::string_view unit = {};   ///< "operations"
    double fraction = -1;         ///< of the whole, 0 to 1; below 0 if unknown
    std::string_view remark = {}; ///< "3 findings"; may be empty
};

/// "nvme [=====     ] 50 %, 1200 operations, 300/s, 0:04 left, 3 findings": as many of
/// its parts as fit into `columns`.
[[nodiscard]] std::string progress_line(const Reached& reached, double seconds,
                                        std::size_t columns);

class Progress {
  public:
    /// `limit_seconds`: ends the work after this time; 0 for never.
    explicit Progress(double limit_seconds = 0);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    /// Call it often; it draws a few times a second. Return: whether time is left. Not
    /// thread-safe.
    bool operator()(Reached reached);

    /// Since its construction.
    [[nodiscard]] double seconds() const;

    /// Erases the line, before other output. The next call draws it again.
    void clear();

  private:
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
    double limit_;
    double drawn_at_ = 0;
    bool is_drawn_ = false;
    bool is_terminal_;
};

} // namespace moat::tools
