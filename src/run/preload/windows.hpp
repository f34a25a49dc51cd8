// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Windows: where the program has mapped devices' regions. Looked up by a signal handler.
#pragma once

#include "run/session.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>

namespace moat::run {

/// Thread-safe. `find` is async-signal-safe.
class Windows {
  public:
    /// A mapping of `file` at the program's addresses from `start` to `end`.
    struct Mapped {
        std::uint64_t start = 0;
        std::uint64_t end = 0;
        Session::Window window = {}; ///< at `start`
        File file = {};

        [[nodiscard]] Session::Window at(std::uint64_t address) const {
            return {window.device, window.region, window.offset + (address - start)};
        }
    };

    /// The mapping that covers `address`.
    [[nodiscard]] std::optional<Mapped> find(std::uint64_t address) const;

    [[nodiscard]] bool overlaps(std::uint64_t start, std::uint64_t end) const;

    /// Return: false if there are too many.
    [[nodiscard]] bool add(const Mapped& mapped);

    /// Removes the addresses from `start` to `end` of one mapping. Return: its file; nothing if no
    /// mapping has any.
    std::optional<File> remove_one(std::uint64_t start, std::uint64_t end);

    /// Return: whether a mapping refers to `file`.
    [[nodiscard]] bool refers(File file) const;

    // Around fork.
    void lock() { mutex_.lock(); }

    void unlock() { mutex_.unlock(); }

  private:
    /// A sequence lock: `version` is odd while the rest changes. Empty: end 0.
    struct Slot {
        std::atomic<std::uint32_t> version = 0;
        std::atomic<std::uint64_t> start = 0;
        std::atomic<std::uint64_t> end = 0;
        std::atomic<std::uint32_t> device = 0;
        std::atomic<std::uint32_t> region = 0;
        std::atomic<std::uint64_t> offset = 0;
        std::atomic<std::uint32_t> file = 0;
    };

    static constexpr std::size_t most = 256;

    [[nodiscard]] static Mapped read(const Slot& slot);
    static void write(Slot& slot, const Mapped& mapped);
    [[nodiscard]] bool add_locked(const Mapped& mapped);

    std::array<Slot, most> slots_;
    std::atomic<std::size_t> used_ = 0; ///< slots from this one on were never used
    std::mutex mutex_;
};

} // namespace moat::run
