// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Session: a program's VFIO files, the soft devices behind them, and the findings. Its
// host is the preloaded library.
#pragma once

#include "run/client.hpp"
#include "run/options.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace moat::run {

/// Thread-safe. Runs its devices on a thread of its own from the first open device on.
class Session {
  public:
    /// `client` outlives it.
    Session(const Options& options, Client& client);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// Opens `path` if it is one of VFIO's: /dev/vfio/vfio, /dev/vfio/N, /dev/iommu,
    /// /dev/vfio/devices/vfioN. Return: the file, -errno; value 0 without a file if it is not.
    [[nodiscard]] Answer open(std::string_view path);
    void close(File file);

    /// An ioctl of the program. `argument` is the number or the program's address.
    [[nodiscard]] Answer ioctl(File file, unsigned long request, std::uint64_t argument);

    // The device file's contents. Return: how many bytes, or -errno.
    [[nodiscard]] std::int64_t read(File file, std::uint64_t offset, std::span<std::byte> into);
    [[nodiscard]] std::int64_t write(File file, std::uint64_t offset,
                                     std::span<const std::byte> from);

    /// The device of a device file; nothing for other files.
    [[nodiscard]] std::optional<Device> device_of(File file) const;

    /// Where a mapping of the device file at `offset` lies.
    struct Window {
        Device device = 0;
        unsigned region = 0;
        std::uint64_t offset = 0; ///< in the region
    };

    /// Return: nothing if it cannot be mapped (EINVAL).
    [[nodiscard]] std::optional<Window> window(File file, std::uint64_t offset,
                                               std::uint64_t bytes) const;

    // A load or store of the program in a mapped region.
    void load(const Window& at, std::span<std::byte> into);
    void store(const Window& at, std::span<const std::byte> from);

    /// The program ends: reports what it left mapped.
    void finish();

  private:
    struct Slot;
    class State;
    std::unique_ptr<State> state_;
};

} // namespace moat::run
