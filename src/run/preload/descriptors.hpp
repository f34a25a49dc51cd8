// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Descriptors: which descriptors of the program are VFIO's files, and which are moat's own.
#pragma once

#include "run/vfio_kernel/vfio_kernel.hpp"

#include <array>
#include <atomic>
#include <cstdint>

namespace moat::run {

/// Thread-safe, without locks or allocation.
class Descriptors {
  public:
    static constexpr int most = 1 << 16; ///< numbers below it

    enum class Use : std::uint8_t {
        other,     ///< of the program, no concern of moat's
        vfio,      ///< a file of the Session
        inherited, ///< a VFIO file of the process that forked this one
        own,       ///< moat's: closed by nobody else
    };

    struct Entry {
        Use use = Use::other;
        File file = File::none; ///< of Use::vfio
    };

    [[nodiscard]] Entry find(int descriptor) const {
        if (!fits(descriptor))
            return {};
        const std::uint32_t entry =
            entries_[static_cast<std::size_t>(descriptor)].load(std::memory_order_acquire);
        if (entry >= inherited)
            return {.use = entry == own ? Use::own : Use::inherited};
        return {.use = entry != 0 ? Use::vfio : Use::other, .file = static_cast<File>(entry)};
    }

    /// Return: false if the number is too large to be kept.
    [[nodiscard]] bool add(int descriptor, File file);
    void add_own(int descriptor);

    /// `duplicate` refers to the file of `descriptor`, too.
    [[nodiscard]] bool add_duplicate(int descriptor, int duplicate);

    /// Return: what it was.
    Entry remove(int descriptor);

    /// Return: whether a descriptor refers to `file`.
    [[nodiscard]] bool refers(File file) const;

    /// The first descriptor from `first` on that is not of Use::other; `most` without one.
    [[nodiscard]] int next_known(int first) const;

    /// In the child of a fork: every file is inherited.
    void inherit();

  private:
    [[nodiscard]] static bool fits(int descriptor) { return descriptor >= 0 && descriptor < most; }

    void set(int descriptor, std::uint32_t entry);

    static constexpr std::uint32_t own = ~std::uint32_t{0};
    static constexpr std::uint32_t inherited = own - 1;

    std::array<std::atomic<std::uint32_t>, most> entries_ = {}; ///< 0, a File, or of the above
    std::atomic<int> end_ = 0; ///< after the highest that was ever known
};

} // namespace moat::run
