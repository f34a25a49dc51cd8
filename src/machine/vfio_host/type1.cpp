// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VFIO type1: a domain is a container, which functions join by their groups.
// Source: Linux, Documentation/driver-api/vfio.rst.
#include "host_domain.hpp"
#include "kernel_call.hpp"
#include "uapi.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

namespace moat::machine::vfio_host {
namespace {

constexpr const char* no_vfio = "no /dev/vfio/vfio: run modprobe vfio_iommu_type1";

} // namespace

/// The result of VFIO_IOMMU_GET_INFO.
struct Type1Domain::Info {
    std::uint64_t page_sizes = 0;
    std::vector<IovaRange> reachable;
    std::optional<std::uint32_t> mappings_left;
    bool dirty_tracking = false;
};

/// An open group in the container; leaves it when its last function is detached.
class Type1Domain::GroupOfFunctions {
  public:
    explicit GroupOfFunctions(platform::FileDescriptor file) : file_(std::move(file)) {}

    [[nodiscard]] const platform::FileDescriptor& file() const { return file_; }

  private:
    platform::FileDescriptor file_;
};

class Type1Domain::AttachmentByGroup final : public Attachment {
  public:
    AttachmentByGroup(std::shared_ptr<GroupOfFunctions> group, Bdf address)
        : group_(std::move(group)), name_(to_string(address)) {}

    [[nodiscard]] Result<platform::FileDescriptor> open_device() override {
        platform::FileDescriptor device(
            call(group_->file(), uapi::group_get_device, name_.c_str()));
        if (device.get() < 0)
            return platform::fail_errno("VFIO does not open the function",
                                        errno == EBUSY ? ErrorCode::busy : ErrorCode::io);
        return device;
    }

  private:
    std::shared_ptr<GroupOfFunctions> group_;
    std::string name_;
};

Result<void> Type1Domain::probe() {
    const auto container = open_file("/dev/vfio/vfio", no_vfio);
    if (!container)
        return std::unexpected(container.error());
    if (call(*container, uapi::get_api_version, nullptr) != uapi::api_version)
        return fail(ErrorCode::unsupported, "unsupported version of the kernel's VFIO");
    if (call(*container, uapi::check_extension, uapi::type1v2_iommu) <= 0)
        return fail(ErrorCode::unsupported, "VFIO has no type1: run modprobe vfio_iommu_type1");
    return {};
}

Result<std::unique_ptr<HostDomain>> Type1Domain::create() {
    if (const auto good = probe(); !good)
        return std::unexpected(good.error());
    auto container = open_file("/dev/vfio/vfio", no_vfio);
    if (!container)
        return std::unexpected(container.error());
    std::unique_ptr<HostDomain> domain(new Type1Domain(std::move(*container)));
    return domain;
}

Result<std::unique_ptr<Attachment>> Type1Domain::attach(const HostFunction& function,
                                                        std::string_view) {
    if (!function.group)
        return fail(ErrorCode::unsupported, "the function has no IOMMU: enable it in the firmware, "
                                            "and boot with intel_iommu=on");
    auto group = join(*function.group);
    if (!group)
        return std::unexpected(group.error());
    if (const auto known = learn(); !known)
        return std::unexpected(known.error());
    return std::make_unique<AttachmentByGroup>(std::move(*group), function.info.address);
}

Result<std::shared_ptr<Type1Domain::GroupOfFunctions>> Type1Domain::join(unsigned number) {
    if (auto joined = groups_[number].lock())
        return joined;
    auto file = open_file("/dev/vfio/" + std::to_string(number),
                          "its group has no file in /dev/vfio: bind it to vfio-pci (moat bind)");
    if (!file)
        return std::unexpected(file.error());
    uapi::GroupStatus status;
    if (call(*file, uapi::group_get_status, &status) < 0)
        return platform::fail_errno("cannot query the group");
    if ((status.flags & uapi::GroupStatus::viable) == 0)
        return fail(
            ErrorCode::refused,
            "the group is not viable: bind each of its functions to vfio-pci or to no driver",
            {"group", number});
    const int container = container_.get();
    if (call(*file, uapi::group_set_container, &container) < 0)
        return platform::fail_errno("cannot add the group to this container",
                                    errno == EBUSY ? ErrorCode::busy : ErrorCode::unsupported);
    if (!has_iommu_ && call(container_, uapi::set_iommu, uapi::type1v2_iommu) < 0)
        return platform::fail_errno(
            errno == EPERM ? "this host does not isolate interrupts: enable interrupt "
                             "remapping, or set vfio_iommu_type1.allow_unsafe_interrupts=1"
                           : "cannot set the container's IOMMU",
            errno == EPERM ? ErrorCode::refused : ErrorCode::unsupported);
    has_iommu_ = true;
    auto joined = std::make_shared<GroupOfFunctions>(std::move(*file));
    groups_[number] = joined;
    return joined;
}

Result<Type1Domain::Info> Type1Domain::info() const {
    uapi::IommuInfo head;
    if (call(container_, uapi::iommu_get_info, &head) < 0)
        return platform::fail_errno("cannot query VFIO's IOMMU");
    // The kernel fills it if there is room, and reports its size.
    std::vector<std::byte> all(head.argument_bytes);
    head.flags = 0;
    std::memcpy(all.data(), &head, sizeof head);
    if (call(container_, uapi::iommu_get_info, all.data()) < 0)
        return platform::fail_errno("cannot query VFIO's IOMMU");
    std::memcpy(&head, all.data(), sizeof head);
    Info info{.page_sizes = head.page_sizes, .reachable = {}, .mappings_left = {}};
    const auto at = [&]<class T>(std::size_t offset, T& value) {
        if (offset > all.size() || all.size() - offset < sizeof value)
            return false;
        std::memcpy(&value, all.data() + offset, sizeof value);
        return true;
    };
    std::size_t offset =
        (head.flags & uapi::IommuInfo::has_capabilities) != 0 ? head.capabilities : 0;
    // A chain without an end has no more links than bytes.
    for (std::size_t seen = 0; offset != 0 && seen != all.size(); ++seen) {
        uapi::CapabilityHeader link;
        if (!at(offset, link))
            break;
        if (link.id == uapi::capability_iova_ranges) {
            uapi::IovaRangesCapability ranges;
            uapi::IovaRange range;
            for (std::size_t i = 0;
                 at(offset, ranges) && i != ranges.count &&
                 at(offset + sizeof ranges + i * sizeof range, range) && range.first <= range.last;
                 ++i) {
                // iommufd's emulation reports every address until its first function is open.
                if (range.first == 0 && range.last == ~std::uint64_t{0})
                    return fail(ErrorCode::unsupported,
                                "this kernel emulates type1 by iommufd, without the addresses "
                                "that a function reaches: use iommufd");
                add_reachable(info.reachable, range.first, range.last);
            }
        } else if (link.id == uapi::capability_entries_available) {
            uapi::EntriesAvailableCapability entries;
            if (at(offset, entries))
                info.mappings_left = entries.available;
        } else if (link.id == uapi::capability_dirty_tracking) {
            info.dirty_tracking = true;
        }
        offset = link.next;
    }
    return info;
}

Result<void> Type1Domain::learn() {
    const auto told = info();
    if (!told)
        return std::unexpected(told.error());
    if (limits().leaf_sizes == 0)
        capabilities_ = {.backend = Backend::type1,
                         .peer_to_peer = true,
                         .dirty_tracking = told->dirty_tracking,
                         .unmaps_holes = true,
                         .most_mappings = told->mappings_left};
    return set_limits(told->reachable, told->page_sizes);
}

Result<std::optional<std::uint32_t>> Type1Domain::mappings_left() const {
    const auto told = info();
    if (!told)
        return std::unexpected(told.error());
    return told->mappings_left;
}

Result<void> Type1Domain::map(Iova start, ByteCount size, PhysicalAddress memory,
                              Attributes attributes) {
    if (const auto good = check(start, size, memory); !good)
        return good;
    // Every argument was checked. But the kernel faults a BAR's page in and looks it up again; if a
    // reader of numa_maps unmapped its leaf in between, it undoes the whole call with EINVAL.
    // Shorter pieces make that rarer.
    const std::uint64_t least =
        std::max(std::uint64_t{1} << 21, std::bit_floor(size.value()) >> 12);
    constexpr unsigned most_tries = 32;
    std::uint64_t piece = size.value();
    std::uint64_t done = 0;
    for (unsigned tries = 1; done != size.value();) {
        const ByteCount now(std::min(piece, size.value() - done));
        if (map_piece(start + ByteCount(done), now, memory + ByteCount(done), attributes)) {
            done += now.value();
            tries = 1;
            continue;
        }
        if (errno != EINVAL || tries++ == most_tries) {
            const auto failed = fail_map(start, size);
            if (done != 0 && !unmap(start, ByteCount(done)))
                return platform::fail_errno("cannot unmap a partly mapped BAR");
            return failed;
        }
        map_retries_.fetch_add(1, std::memory_order_relaxed);
        piece = std::max(std::bit_ceil(now.value()) / 2, least);
    }
    return {};
}

bool Type1Domain::map_piece(Iova start, ByteCount size, PhysicalAddress memory,
                            Attributes attributes) {
    uapi::MapDma map;
    map.flags = (has(attributes, Attributes::read) ? uapi::dma_read : 0) |
                (has(attributes, Attributes::write) ? uapi::dma_write : 0);
    map.virtual_address = memory.value();
    map.iova = start.value();
    map.size = size.value();
    return call(container_, uapi::iommu_map_dma, &map) == 0;
}

Result<void> Type1Domain::unmap(Iova start, ByteCount size) {
    if (const auto good = check(start, size, PhysicalAddress(0)); !good)
        return good;
    uapi::UnmapDma unmap;
    unmap.iova = start.value();
    unmap.size = size.value();
    if (call(container_, uapi::iommu_unmap_dma, &unmap) == 0)
        return {};
    if (errno == EINVAL)
        return fail(ErrorCode::unsupported, "a part of a mapping cannot be unmapped",
                    {"start", start.value()}, {"size", size.value()});
    return platform::fail_errno("the kernel rejected the unmap");
}

} // namespace moat::machine::vfio_host
