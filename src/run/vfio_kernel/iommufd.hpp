// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Iommufd: the objects of an open /dev/iommu: address spaces (IOAS), page tables of the hardware
// (HWPT), devices. A HWPT holds no mappings here: it names its IOAS.
#pragma once

#include "run/vfio_kernel/mappings.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <variant>
#include <vector>

namespace moat::run::vfio {

/// Lives as long as its file and its devices' files.
class Iommufd {
  public:
    explicit Iommufd(Host& host) : host_(&host) {}

    [[nodiscard]] Answer request(unsigned long request, std::span<std::byte> argument);

    /// Return: the object of `device`, until unbind().
    [[nodiscard]] std::uint32_t bind(Device device);
    void unbind(std::uint32_t object);

    /// Attaches a device to an IOAS or HWPT; `table` becomes the HWPT. A device that was attached
    /// moves. Return: an error of errno.
    [[nodiscard]] int attach(std::uint32_t object, std::uint32_t& table);
    void detach(std::uint32_t object);

    /// The object of a device that is bound; 0 if it is not.
    [[nodiscard]] std::uint32_t object_of(Device device) const;

    /// Unmaps everything: the last file was closed.
    void release();

  private:
    struct Ioas {
        Mappings mappings;
        std::vector<IovaRange> allowed = {};
        bool huge_pages = true;
    };

    struct Hwpt {
        std::uint32_t ioas = 0;
        bool automatic = false; ///< made by attach(), ends with its last device
    };

    struct Bound {
        Device device = 0;
        std::uint32_t hwpt = 0; ///< 0: not attached
    };

    /// What an IOAS accepts, by what is attached.
    struct Limits {
        std::uint64_t alignment = 1;
        std::vector<IovaRange> ranges = {};

        [[nodiscard]] bool reaches(IovaRange range) const;
    };

    template <class T>
    [[nodiscard]] T* find(std::uint32_t object) {
        const auto found = objects_.find(object);
        return found != objects_.end() ? std::get_if<T>(&found->second) : nullptr;
    }

    [[nodiscard]] std::uint32_t add(std::variant<Ioas, Hwpt, Bound> object);
    [[nodiscard]] bool used(std::uint32_t object) const;
    [[nodiscard]] Limits limits(std::uint32_t ioas) const;
    /// With tables of the hardware, but without a device.
    [[nodiscard]] Limits table_limits() const;
    /// Whether what is mapped and allowed in `ioas` fits.
    [[nodiscard]] bool fits(const Ioas& ioas, const Limits& limits) const;
    void release_table(std::uint32_t hwpt);

    [[nodiscard]] int destroy(std::span<std::byte> argument);
    [[nodiscard]] int allocate_ioas(std::span<std::byte> argument);
    [[nodiscard]] int allow(std::span<std::byte> argument);
    [[nodiscard]] int ranges(std::span<std::byte> argument);
    [[nodiscard]] int map(std::span<std::byte> argument);
    [[nodiscard]] int copy(std::span<std::byte> argument);
    [[nodiscard]] int unmap(std::span<std::byte> argument);
    [[nodiscard]] int option(std::span<std::byte> argument);
    [[nodiscard]] int allocate_hwpt(std::span<std::byte> argument);
    [[nodiscard]] int hardware_info(std::span<std::byte> argument);

    /// A part of a mapping.
    struct Piece {
        std::uint64_t bytes = 0;
        std::uint64_t memory = 0;
        bool writable = true; ///< the mapping permits writes, so a copy may
    };

    /// Maps the pieces one behind the other, at `iova` or at a place that is found.
    [[nodiscard]] int map_pieces(std::uint32_t ioas, std::span<const Piece> pieces, bool fixed,
                                 std::uint64_t& iova, fault::Allows allows);
    [[nodiscard]] int check_place(std::uint32_t ioas, std::uint64_t iova,
                                  std::uint64_t bytes) const;
    [[nodiscard]] int find_place(std::uint32_t ioas, std::uint64_t bytes, std::uint64_t memory,
                                 std::uint64_t& iova) const;

    Host* host_;
    std::map<std::uint32_t, std::variant<Ioas, Hwpt, Bound>> objects_ = {};
    std::uint64_t rlimit_mode_ = 0;
};

} // namespace moat::run::vfio
