// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VfioWorld: VFIO's files and requests, answered by Linux or by the state machine of `moat run`, so
// that one script of requests can be put to both.
#pragma once

#include "machine/pci.hpp"
#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace moat::tests {

/// Memory at one address in both worlds, for arguments and for DMA.
class Arena {
  public:
    static constexpr std::uint64_t start = 0x100'0000'0000;
    static constexpr std::uint64_t bytes = 16 << 20;
    static constexpr std::uint64_t end = start + bytes;
    static constexpr std::uint64_t argument_bytes = 64 << 10; ///< at its end; DMA before

    /// Ends the program if the address is taken.
    Arena();

    [[nodiscard]] static std::span<std::byte> at(std::uint64_t address, std::size_t bytes) {
        return {reinterpret_cast<std::byte*>(address), bytes};
    }

    /// How many of `bytes` at `address` there are.
    [[nodiscard]] static std::size_t reach(std::uint64_t address, std::uint64_t bytes);
};

class VfioWorld {
  public:
    virtual ~VfioWorld() = default;
    VfioWorld(const VfioWorld&) = delete;
    VfioWorld& operator=(const VfioWorld&) = delete;

    // Return: a descriptor or the result of an ioctl, or -errno.
    [[nodiscard]] virtual std::int64_t open(const std::string& path) = 0;
    [[nodiscard]] virtual std::int64_t ioctl(int file, unsigned long request,
                                             std::uint64_t argument) = 0;
    virtual void close(int file) = 0;

  protected:
    VfioWorld() = default;
};

/// The devices of a world, and its IOMMU, as the script and the state machine must know them.
struct Facts {
    std::vector<run::DeviceShape> devices = {};
    std::vector<IovaRange> aperture = {};
    std::uint64_t page_sizes = 0;
    std::vector<std::string> device_files = {}; ///< "vfio0", where there are any
};

[[nodiscard]] std::unique_ptr<VfioWorld> linux_world();
[[nodiscard]] std::unique_ptr<VfioWorld> model_world(const Facts& facts);

// The scripts: print a line for each answer.
void ask_type1(VfioWorld& world, const Facts& facts);
void ask_iommufd(VfioWorld& world, const Facts& facts);
void ask_iommufd_at_random(VfioWorld& world, const Facts& facts, unsigned seed);
void ask_type1_at_random(VfioWorld& world, const Facts& facts, unsigned seed);

} // namespace moat::tests
