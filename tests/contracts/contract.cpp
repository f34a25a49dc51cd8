// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "contract.hpp"

#include "moat/core/text.hpp"

#include "sanitized.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <gtest/gtest.h>
#include <random>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/// Makes AddressSanitizer return null for sizes that cannot be allocated, without a report.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" [[gnu::visibility("default")]] const char* __asan_default_options() {
    return "allocator_may_return_null=1";
}

namespace moat::tests {

namespace {

constexpr std::size_t most_deaths = 48;
constexpr std::size_t most_lines = 24;
constexpr unsigned seconds_of_a_call = 60;
/// A sanitizer's build tries one in so many pairs of hostile values.
constexpr std::uint64_t pairs_a_call = sanitized ? 16 : 1;

/// A child's report, in memory shared with the parent, so that it survives an abort.
struct Board {
    std::uint64_t call; ///< the current call; at the end, the number of calls
    bool done;
    std::array<char, 512> text; ///< the current call
    std::size_t lines;
    std::array<std::array<char, 512>, most_lines> line;

    void add(const std::string& what) {
        if (lines != most_lines)
            std::snprintf(line[lines++].data(), line[0].size(), "%s", what.c_str());
    }
};

std::vector<std::uint64_t> hostile_values(const Argument& argument, std::uint64_t page) {
    constexpr std::uint64_t top = ~std::uint64_t{0};
    constexpr std::uint64_t half = std::uint64_t{1} << 63;
    std::vector<std::uint64_t> values = {0,
                                         1,
                                         2,
                                         7,
                                         63,
                                         64,
                                         page / 2,
                                         page - 1,
                                         page,
                                         page + 1,
                                         2 * page,
                                         (1ULL << 32) - 1,
                                         1ULL << 32,
                                         half - 1,
                                         half,
                                         half + 1,
                                         half + page,
                                         top - 2 * page + 1,
                                         top - page,
                                         top - page + 1,
                                         top - 1,
                                         top,
                                         argument.good - 1,
                                         argument.good + 1,
                                         argument.good + page};
    values.insert(values.end(), argument.more.begin(), argument.more.end());
    if (argument.bits < 64)
        for (std::uint64_t& each : values)
            each &= (std::uint64_t{1} << argument.bits) - 1;
    std::ranges::sort(values);
    values.erase(std::ranges::unique(values).begin(), values.end());
    return values;
}

std::string text_of(const Row& row, Values values) {
    std::string text = row.name + "(";
    for (std::size_t i = 0; i != values.size(); ++i)
        text +=
            std::string(i == 0 ? "" : ", ") + row.arguments[i].name + "=" + hexadecimal(values[i]);
    return text + ")";
}

/// Whether an error of this code concerns a number, rather than what lies at an address.
bool is_about_a_number(ErrorCode code) {
    switch (code) {
    case ErrorCode::unaligned:
    case ErrorCode::out_of_range:
    case ErrorCode::overflow:
    case ErrorCode::unsupported:
    case ErrorCode::no_space:
    case ErrorCode::limit:
        return true;
    default:
        return false;
    }
}

/// Whether one of the error's values is accepted; an Error shows only texts.
bool carries(const Error& error, const std::function<bool(std::uint64_t)>& accept) {
    const std::string text = to_string(error);
    for (std::size_t at = text.find("=0x"); at != std::string::npos; at = text.find("=0x", at + 1))
        if (accept(std::stoull(text.substr(at + 1), nullptr, 16)))
            return true;
    return false;
}

int failed_expectations() {
    return ::testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
}

class Child {
  public:
    Child(Board& board, const MakeRows& make_rows, std::uint64_t page, std::uint64_t first_call)
        : board_(board), page_(page), first_call_(first_call) {
        for (const Row& row : make_rows())
            run(row);
        board_.call = calls_;
    }

  private:
    void run(const Row& row) {
        std::vector<std::uint64_t> values;
        std::vector<std::vector<std::uint64_t>> hostile;
        for (const Argument& each : row.arguments) {
            values.push_back(each.good);
            hostile.push_back(hostile_values(each, page_));
        }
        good_failed_.reset();
        state_.reset();
        call(row, values, {});
        for (std::size_t i = 0; i != values.size(); ++i)
            for (const std::uint64_t value : hostile[i]) {
                values[i] = value;
                call(row, values, i);
                for (std::size_t j = i + 1; j != values.size(); ++j) {
                    for (const std::uint64_t other : hostile[j]) {
                        values[j] = other;
                        if (random_() % pairs_a_call == 0)
                            call(row, values, {});
                    }
                    values[j] = row.arguments[j].good;
                }
                values[i] = row.arguments[i].good;
            }
    }

    /// `hostile` is the one invalid argument.
    void call(const Row& row, Values values, std::optional<std::size_t> hostile) {
        if (calls_++ < first_call_)
            return;
        const std::string text = text_of(row, values);
        board_.call = calls_;
        std::snprintf(board_.text.data(), board_.text.size(), "%s", text.c_str());
        if (!state_)
            state_ = row.state();
        const int failures = failed_expectations();
        alarm(seconds_of_a_call);
        Outcome outcome;
        try {
            outcome = row.call(values);
        } catch (const std::exception& exception) {
            board_.add(text + " threw " + exception.what());
        }
        alarm(0);
        if (failed_expectations() != failures)
            board_.add(text + " failed an expectation, see above");
        const bool good = std::ranges::equal(values, row.arguments, {}, {}, &Argument::good);
        if (good && !hostile)
            good_failed_ = outcome;
        if (good && row.good_succeeds && outcome)
            board_.add(text + " failed: " + to_string(*outcome));
        if (outcome && hostile && !good)
            check_values(*outcome, row, values, *hostile, text);
        if (std::string after = row.state(); after != *state_) {
            board_.add(text + (outcome ? " failed (" + to_string(*outcome) + ") and" : "") +
                       " changed [" + *state_ + "] to [" + after + "]");
            state_ = std::move(after);
        }
    }

    void check_values(const Error& error, const Row& row, Values values, std::size_t hostile,
                      const std::string& text) {
        const Argument& argument = row.arguments[hostile];
        if (!argument.named || good_failed_ == error)
            return;
        const bool about_it = is_about_a_number(error.code());
        // A number's page names it, and so does the end of the range that it begins or measures.
        const auto is_near = [&](std::uint64_t a, std::uint64_t b) {
            return a - b <= 2 * page_ || b - a <= 2 * page_;
        };
        const auto names_it = [&](std::uint64_t value) {
            return is_near(value, values[hostile]) ||
                   std::ranges::any_of(values, [&](std::uint64_t other) {
                       return is_near(value - values[hostile], other);
                   });
        };
        if (!carries(error, [&](std::uint64_t value) { return !about_it || names_it(value); }) &&
            (about_it || error.code() != ErrorCode::empty))
            board_.add(text + " does not name " + argument.name + ": " + to_string(error));
    }

    Board& board_;
    std::optional<Error> good_failed_; ///< why the row's call with valid numbers failed
    std::optional<std::string> state_; ///< of the row, since its last call
    const std::uint64_t page_;
    const std::uint64_t first_call_;
    std::uint64_t calls_ = 0;
    std::mt19937_64 random_{1}; // the same in every child
};

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == SIGALRM
                   ? "did not return"
                   : "ended the process: " + std::string(strsignal(WTERMSIG(status)));
    return "ended the process with status " + std::to_string(WEXITSTATUS(status));
}

} // namespace

std::span<std::byte> large_memory() {
    constexpr std::size_t bytes = std::size_t{1} << 33;
    static void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return {static_cast<std::byte*>(memory), bytes};
}

std::vector<std::string> broken_contracts(const MakeRows& make_rows, std::uint64_t page) {
    void* const shared =
        mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return {"no memory to share with the children"};
    Board& board = *new (shared) Board{};
    std::vector<std::string> broken;
    for (std::size_t deaths = 0; !board.done && deaths != most_deaths; ++deaths) {
        const std::uint64_t first_call = board.call;
        std::fflush(nullptr);
        const pid_t child = fork();
        if (child == 0) {
            const Child calls(board, make_rows, page, first_call);
            board.done = true;
            std::fflush(nullptr);
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child) {
            broken.emplace_back("no child process could be started");
            break;
        }
        if (!board.done)
            broken.push_back(std::string(board.text.data()) + " " + how_it_ended(status));
        if (!board.done && board.call == first_call)
            break; // before the first call
    }
    for (std::size_t i = 0; i != board.lines; ++i)
        broken.emplace_back(board.line[i].data());
    if (broken.empty() && board.call == 0)
        broken.emplace_back("there is no row");
    board.~Board();
    munmap(shared, sizeof(Board));
    return broken;
}

void expect_contracts(const MakeRows& make_rows, std::uint64_t page) {
    for (const std::string& line : broken_contracts(make_rows, page))
        ADD_FAILURE() << line;
}

} // namespace moat::tests
