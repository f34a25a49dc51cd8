// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TaskNames: the names of threads, from /proc.
#pragma once

#include "trace_files.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace moat::watch {

/// Reads each name once a round. A thread that ended has the name that the tracer saved, if any.
class TaskNames {
  public:
    TaskNames(std::filesystem::path proc, std::filesystem::path tracefs)
        : proc_(std::move(proc)), tracefs_(std::move(tracefs)) {}

    /// Valid until `forget`.
    [[nodiscard]] std::string_view of(std::uint32_t thread) {
        if (thread == 0)
            return {};
        const auto [found, is_new] = names_.try_emplace(thread);
        if (is_new)
            found->second = read_line(proc_ / std::to_string(thread) / "comm");
        if (found->second.empty())
            found->second = saved(thread);
        return found->second;
    }

    /// Ends the round.
    void forget() {
        names_.clear();
        saved_.clear();
    }

  private:
    /// Lines such as "166 dd".
    [[nodiscard]] std::string saved(std::uint32_t thread) {
        if (saved_.empty())
            saved_ = '\n' + read_file(tracefs_ / "saved_cmdlines").value_or("");
        const std::string start = '\n' + std::to_string(thread) + ' ';
        const std::size_t at = saved_.find(start);
        if (at == std::string::npos)
            return {};
        const std::size_t name = at + start.size();
        return saved_.substr(name, saved_.find('\n', name) - name);
    }

    std::filesystem::path proc_;
    std::filesystem::path tracefs_;
    std::map<std::uint32_t, std::string> names_;
    std::string saved_; ///< this round's saved_cmdlines behind a line end
};

} // namespace moat::watch
