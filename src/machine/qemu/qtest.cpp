// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "machine/qemu/qtest.hpp"

#include "moat/core/text.hpp"

#include "core/parse.hpp"

#include <chrono>
#include <optional>

namespace moat::machine::qemu {
namespace {

/// Parses "OK 0x1f".
std::optional<std::uint64_t> value_in(std::string_view line) {
    constexpr std::string_view before = "OK 0x";
    if (!line.starts_with(before))
        return std::nullopt;
    line.remove_prefix(before.size());
    return number_in(line, 16);
}

} // namespace

void Qtest::post(std::string_view verb, std::uint64_t address, Width width) {
    constexpr std::string_view suffixes = " bw l   q"; // by bytes
    unsent_.append(verb) += suffixes[static_cast<std::size_t>(width)];
    unsent_ += ' ' + hexadecimal(address);
}

std::uint64_t Qtest::read(Space space, std::uint64_t address, Width width) {
    if (!health_)
        return all_ones(width);
    post(space == Space::memory ? "read" : "in", address, width);
    unsent_ += '\n';
    flush();
    ++round_trips_;
    finish_meanwhile();
    take_answers();
    const std::string_view line = health_ ? answer() : std::string_view();
    if (!health_)
        return all_ones(width);
    const auto value = value_in(line);
    if (!value || (*value & ~all_ones(width)) != 0) {
        broken({ErrorCode::io, "QEMU answered a read without a value"});
        return all_ones(width);
    }
    return *value;
}

void Qtest::write(Space space, std::uint64_t address, Width width, std::uint64_t value) {
    if (!health_)
        return;
    if (unanswered_ == most_posted)
        drain();
    post(space == Space::memory ? "write" : "out", address, width);
    unsent_ += ' ' + hexadecimal(value & all_ones(width)) + '\n';
    ++unanswered_;
}

void Qtest::flush() {
    if (unsent_.empty() || !health_)
        return;
    if (const auto sent = socket_.send(unsent_); !sent)
        socket_failed(sent.error());
    unsent_.clear();
}

void Qtest::drain() {
    flush();
    if (unanswered_ == 0)
        return;
    ++round_trips_;
    finish_meanwhile();
    take_answers();
}

void Qtest::take_answers() {
    while (health_ && unanswered_ != 0) {
        --unanswered_;
        answer();
    }
}

/// The next line that answers a command; skips lines about interrupt pins.
std::string_view Qtest::answer() {
    constexpr std::size_t most = 256;
    for (;;) {
        const auto line = socket_.receive_until('\n', most);
        if (!line) {
            socket_failed(line.error());
            return {};
        }
        if (line->starts_with("OK") && (line->size() == 2 || (*line)[2] == ' '))
            return *line;
        if (line->starts_with("IRQ "))
            continue;
        broken(line->starts_with("FAIL")
                   ? Error(ErrorCode::io, "QEMU rejected a qtest command")
                   : Error(ErrorCode::io, "QEMU answers with something that is not qtest"));
        return {};
    }
}

/// Ends the process: its later answers would not be trustworthy.
void Qtest::broken(const Error& why) {
    process_.end();
    unsent_.clear();
    unanswered_ = 0;
    health_ = std::unexpected(why);
}

void Qtest::socket_failed(const Error& error) {
    const ErrorValue process{"process", static_cast<std::uint64_t>(process_.number())};
    // A process that closed its socket is about to end; waits to report how.
    if (error.code() == ErrorCode::io)
        (void)process_.ended_within(std::chrono::seconds(1));
    const platform::Ending ending = process_.end();
    if (error.code() == ErrorCode::busy)
        broken({ErrorCode::io, "QEMU did not answer in time; moat killed it", process});
    else if (error.code() == ErrorCode::limit)
        broken({ErrorCode::io, "QEMU answers with something that is not qtest", process});
    else
        broken({ErrorCode::io,
                "QEMU exited",
                process,
                {"status", static_cast<std::uint64_t>(ending.status)},
                {"signal", static_cast<std::uint64_t>(ending.signal)}});
}

} // namespace moat::machine::qemu
