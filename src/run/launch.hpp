// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Launch: the folder that the command shares with its preloaded library, and the program under it.
#pragma once

#include "run/options.hpp"
#include "run/program.hpp"
#include "run/tally.hpp"

#include <expected>
#include <memory>
#include <string>
#include <vector>

namespace moat::run {

enum class Paths : std::uint8_t {
    automatic, ///< mounted where that is possible
    mounted,
    redirected,
};

/// A folder below TMPDIR or /tmp; it is removed at the end.
class Launch {
  public:
    /// Error: what could not be written.
    [[nodiscard]] static std::expected<Launch, std::string> prepare(Options options, Paths paths);

    Launch(Launch&&) noexcept;
    ~Launch();

    /// Runs `program` with `library` preloaded and waits for its end. The terminal's signals reach
    /// the program; SIGTERM and SIGHUP are passed on. Error: why it did not start.
    [[nodiscard]] std::expected<ProgramEnd, std::string>
    run(const std::vector<std::string>& program, const std::string& library);

    [[nodiscard]] const Options& options() const;

    /// The counts of all processes until now.
    [[nodiscard]] Tally tally() const;

    /// The JSON lines of the findings.
    [[nodiscard]] std::string findings() const;

  private:
    class State;
    explicit Launch(std::unique_ptr<State> state);

    std::unique_ptr<State> state_;
};

} // namespace moat::run
