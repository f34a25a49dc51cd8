// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernel module moat_guard (kernel/moat_guard): loads it, and reads and writes its settings.
// Every error is a sentence that says what to do.
#pragma once

#include "watch/guard_state.hpp"

#include <cstdint>
#include <expected>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace moat::watch {

struct GuardSettings {
    std::uint64_t size_kib = 0;
    std::uint64_t budget = 0; ///< percent
};

class GuardModule {
  public:
    /// `root`: the folder that contains sys; tests have one of their own.
    explicit GuardModule(std::filesystem::path root) : root_(std::move(root)) {}

    [[nodiscard]] bool is_loaded() const;

    /// Loads it without guards, from `file`, or as modprobe finds it if `file` is empty.
    [[nodiscard]] std::expected<void, std::string> load(const std::filesystem::path& file) const;

    [[nodiscard]] std::expected<GuardSettings, std::string> settings() const;

    [[nodiscard]] std::expected<std::vector<GuardDevice>, std::string> state() const;

    /// Chooses devices by address; none: all.
    [[nodiscard]] std::expected<void, std::string>
    choose(std::span<const std::string> addresses) const;

    /// Sets the size of guards of new mappings; 0: none.
    [[nodiscard]] std::expected<void, std::string> set_size(std::uint64_t kib) const;

  private:
    [[nodiscard]] std::expected<void, std::string> set(const char* parameter,
                                                       const std::string& value) const;

    std::filesystem::path root_;
};

/// Sets `guard_bytes` of the devices that the module guards; leaves them if it is not loaded or
/// its state cannot be read.
void add_guards(PciDevices& devices, const std::filesystem::path& root);

} // namespace moat::watch
