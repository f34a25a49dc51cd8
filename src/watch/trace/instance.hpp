// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TraceInstance: a tracefs instance of this process, with probes in a group of its own; or another
// one, unchanged. remove_dead undoes what a killed process left behind.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::watch {

class TraceInstance {
  public:
    /// Creates instances/moat-PID with tracing stopped. The error is a sentence.
    [[nodiscard]] static std::expected<TraceInstance, std::string>
    create(const std::filesystem::path& root, const std::filesystem::path& tracefs);

    /// An existing instance, which this class never changes.
    [[nodiscard]] static std::expected<TraceInstance, std::string>
    attach(const std::filesystem::path& tracefs, const std::string& name);

    TraceInstance(TraceInstance&& other) noexcept
        : tracefs_(std::move(other.tracefs_)), folder_(std::exchange(other.folder_, {})),
          group_(std::exchange(other.group_, {})) {}

    TraceInstance& operator=(TraceInstance&&) = delete;

    /// Removes an instance that it created, and its probes. No file of it may be open.
    ~TraceInstance();

    [[nodiscard]] bool is_own() const { return !group_.empty(); }

    [[nodiscard]] const std::filesystem::path& folder() const { return folder_; }

    [[nodiscard]] const std::filesystem::path& tracefs() const { return tracefs_; }

    /// The group of its probes: "moat_123".
    [[nodiscard]] const std::string& group() const { return group_; }

    /// Writes a file of an own instance. Return: 0 or errno.
    int write(const std::filesystem::path& file, std::string_view text) const;

    /// Adds a probe ("f", "alloc", "function arguments") to the group. Return: whether the kernel
    /// accepts it.
    [[nodiscard]] bool add_probe(std::string_view kind, std::string_view name,
                                 std::string_view where) const;

    /// How many hits of its kprobes the kernel skipped.
    [[nodiscard]] std::uint64_t missed_kprobes() const;

  private:
    TraceInstance(std::filesystem::path tracefs, std::filesystem::path folder, std::string group)
        : tracefs_(std::move(tracefs)), folder_(std::move(folder)), group_(std::move(group)) {}

    std::filesystem::path tracefs_;
    std::filesystem::path folder_;
    std::string group_; ///< empty: not its own
};

/// Removes the instances and probes of moat processes that no longer run. Return: their numbers.
std::vector<std::string> remove_dead(const std::filesystem::path& root,
                                     const std::filesystem::path& tracefs);

} // namespace moat::watch
