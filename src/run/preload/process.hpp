// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The process that the library was loaded into: its options, its Session, its descriptors and
// mappings. One of each, which outlive every thread.
#pragma once

#include "run/client.hpp"
#include "run/options.hpp"
#include "run/preload/descriptors.hpp"
#include "run/preload/windows.hpp"
#include "run/session.hpp"

#include <cstdint>
#include <string_view>
#include <sys/types.h>

namespace moat::run {

/// The options in MOAT_RUN; nullptr without it, and then nothing is interposed.
[[nodiscard]] const Options* options();

/// Made by the first call. Valid until the process forks: the child has a new one.
[[nodiscard]] Session& session();
/// nullptr if there is none yet.
[[nodiscard]] Session* session_if_any();

[[nodiscard]] Descriptors& descriptors();
[[nodiscard]] Windows& windows();
[[nodiscard]] Client& client();

// A file of VFIO is closed with the last descriptor and mapping that refer to it.
void forget_descriptor(int descriptor);
void close_file(File file);
/// Of the addresses from `start` to `end`.
void forget_mappings(std::uint64_t start, std::uint64_t end);

/// The process that the memory belongs to, and how often it forked before that.
[[nodiscard]] pid_t process_number();
[[nodiscard]] unsigned generation();

/// Return: whether this is the child of a vfork, which shares the memory but not the descriptors.
[[nodiscard]] bool is_vfork_child();

/// Prints a line that begins with "moat run: " to standard error as it was at the start.
void print_line(std::string_view text);

/// While one lives, its thread runs moat's code: what it opens is moat's own, and calls that are
/// interposed have their usual meaning.
class Inside {
  public:
    Inside() { ++depth; }

    ~Inside() { --depth; }

    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

    [[nodiscard]] static bool here() { return depth != 0; }

  private:
    static thread_local constinit unsigned depth;
};

} // namespace moat::run
