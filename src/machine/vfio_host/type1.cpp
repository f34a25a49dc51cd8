// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VFIO type1: a domain is a container, which functions join by their groups.
// Source: Linux, Documentation/driver-api/vfio.rst.
#include "machine/vfio_host/kernel_domain.hpp"
#include "uapi.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

namespace moat::machine::vfio_host {
namespace {

using platform::fail_errno;
using platform::FileDescriptor;

/// An open group in the container; leaves it when its last function is detached.
using Group = std::shared_ptr<const FileDescriptor>;

/// The result of VFIO_IOMMU_GET_INFO.
struct Info {
    std::uint64_t page_sizes = 0;
    std::vector<IovaRange> reachable = {};
    std::optional<std::uint32_t> mappings_left = {};
    bool dirty_tracking = false;
};

Result<FileDescriptor> open_container() {
    return open_file("/dev/vfio/vfio", "no /dev/vfio/vfio: run modprobe vfio_iommu_type1");
}

class Type1Domain final : public KernelDomain {
  public:
    explicit Type1Domain(FileDescriptor container) : container_(std::move(container)) {}

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override;
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override;

    [[nodiscard]] Result<std::optional<std::uint32_t>> mappings_left() const override {
        MOAT_LET(const Info told, info());
        return told.mappings_left;
    }

    [[nodiscard]] Result<Attachment> attach(const HostFunction& function,
                                            std::string_view root) override;

  private:
    Result<Group> join(unsigned number);
    [[nodiscard]] Result<Info> info() const;
    /// One call. Return: whether it succeeded; errno has the reason.
    bool map_piece(Iova start, ByteCount size, PhysicalAddress memory, Attributes attributes);

    FileDescriptor container_;
    std::map<unsigned, std::weak_ptr<const FileDescriptor>> groups_;
    bool has_iommu_ = false;
};

Result<Attachment> Type1Domain::attach(const HostFunction& function, std::string_view) {
    if (!function.group)
        return fail(ErrorCode::unsupported, "the function has no IOMMU: enable it in the firmware, "
                                            "and boot with intel_iommu=on");
    MOAT_LET(const Group group, join(*function.group));
    MOAT_LET(const Info told, info());
    if (limits().leaf_sizes == 0)
        capabilities_ = {.backend = Backend::type1,
                         .peer_to_peer = true,
                         .dirty_tracking = told.dirty_tracking,
                         .unmaps_holes = true,
                         .most_mappings = told.mappings_left};
    MOAT_TRY(set_limits(told.reachable, told.page_sizes));
    return [group, name = to_string(function.info.address)]() -> Result<FileDescriptor> {
        FileDescriptor device(call(*group, VFIO_GROUP_GET_DEVICE_FD, name.c_str()));
        if (device.get() < 0)
            return fail_errno("VFIO does not open the function",
                              errno == EBUSY ? ErrorCode::busy : ErrorCode::io);
        return device;
    };
}

Result<Group> Type1Domain::join(unsigned number) {
    if (auto joined = groups_[number].lock())
        return joined;
    MOAT_LET(FileDescriptor file,
             open_file("/dev/vfio/" + std::to_string(number),
                       "its group has no file in /dev/vfio: bind it to vfio-pci (moat bind)"));
    vfio_group_status status{.argsz = sizeof status, .flags = 0};
    if (call(file, VFIO_GROUP_GET_STATUS, &status) < 0)
        return fail_errno("cannot query the group");
    if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0)
        return fail(
            ErrorCode::refused,
            "the group is not viable: bind each of its functions to vfio-pci or to no driver",
            {"group", number});
    const int container = container_.get();
    if (call(file, VFIO_GROUP_SET_CONTAINER, &container) < 0)
        return fail_errno("cannot add the group to this container",
                          errno == EBUSY ? ErrorCode::busy : ErrorCode::unsupported);
    if (!has_iommu_ && call(container_, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
        return fail_errno(errno == EPERM
                              ? "this host does not isolate interrupts: enable interrupt "
                                "remapping, or set vfio_iommu_type1.allow_unsafe_interrupts=1"
                              : "cannot set the container's IOMMU",
                          errno == EPERM ? ErrorCode::refused : ErrorCode::unsupported);
    has_iommu_ = true;
    auto joined = std::make_shared<const FileDescriptor>(std::move(file));
    groups_[number] = joined;
    return joined;
}

Result<Info> Type1Domain::info() const {
    vfio_iommu_type1_info head{};
    head.argsz = sizeof head;
    if (call(container_, VFIO_IOMMU_GET_INFO, &head) < 0)
        return fail_errno("cannot query VFIO's IOMMU");
    // The kernel fills it if there is room, and reports its size.
    std::vector<std::byte> all(std::max<std::size_t>(head.argsz, sizeof head));
    head.flags = 0;
    std::memcpy(all.data(), &head, sizeof head);
    if (call(container_, VFIO_IOMMU_GET_INFO, all.data()) < 0)
        return fail_errno("cannot query VFIO's IOMMU");
    std::memcpy(&head, all.data(), sizeof head);
    Info info{.page_sizes = head.iova_pgsizes};
    const auto at = [&]<class T>(std::size_t offset, T& value) {
        if (offset > all.size() || all.size() - offset < sizeof value)
            return false;
        std::memcpy(&value, all.data() + offset, sizeof value);
        return true;
    };
    std::size_t offset = (head.flags & VFIO_IOMMU_INFO_CAPS) != 0 ? head.cap_offset : 0;
    // A chain without an end has no more links than bytes.
    for (std::size_t seen = 0; offset != 0 && seen != all.size(); ++seen) {
        vfio_info_cap_header link;
        if (!at(offset, link))
            break;
        if (link.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
            vfio_iommu_type1_info_cap_iova_range ranges;
            vfio_iova_range range;
            for (std::size_t i = 0;
                 at(offset, ranges) && i != ranges.nr_iovas &&
                 at(offset + sizeof ranges + i * sizeof range, range) && range.start <= range.end;
                 ++i) {
                // iommufd's emulation reports every address until its first function is open.
                if (range.start == 0 && range.end == ~std::uint64_t{0})
                    return fail(ErrorCode::unsupported,
                                "this kernel emulates type1 by iommufd, without the addresses "
                                "that a function reaches: use iommufd");
                add_reachable(info.reachable, range.start, range.end);
            }
        } else if (link.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
            if (vfio_iommu_type1_info_dma_avail entries; at(offset, entries))
                info.mappings_left = entries.avail;
        } else if (link.id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION) {
            info.dirty_tracking = true;
        }
        offset = link.next;
    }
    return info;
}

Result<void> Type1Domain::map(Iova start, ByteCount size, PhysicalAddress memory,
                              Attributes attributes) {
    MOAT_TRY(check(start, size, memory));
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
                return fail_errno("cannot unmap a partly mapped BAR");
            return failed;
        }
        map_retries_.fetch_add(1, std::memory_order_relaxed);
        piece = std::max(std::bit_ceil(now.value()) / 2, least);
    }
    return {};
}

bool Type1Domain::map_piece(Iova start, ByteCount size, PhysicalAddress memory,
                            Attributes attributes) {
    const std::uint32_t read = has(attributes, Attributes::read) ? VFIO_DMA_MAP_FLAG_READ : 0;
    const std::uint32_t write = has(attributes, Attributes::write) ? VFIO_DMA_MAP_FLAG_WRITE : 0;
    const vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                                       .flags = read | write,
                                       .vaddr = memory.value(),
                                       .iova = start.value(),
                                       .size = size.value()};
    return call(container_, VFIO_IOMMU_MAP_DMA, &map) == 0;
}

Result<void> Type1Domain::unmap(Iova start, ByteCount size) {
    MOAT_TRY(check(start, size, PhysicalAddress(0)));
    vfio_iommu_type1_dma_unmap unmap{
        .argsz = sizeof unmap, .flags = 0, .iova = start.value(), .size = size.value()};
    if (call(container_, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0)
        return {};
    if (errno == EINVAL)
        return fail(ErrorCode::unsupported, "a part of a mapping cannot be unmapped",
                    {"start", start.value()}, {"size", size.value()});
    return fail_errno("the kernel rejected the unmap");
}

} // namespace

Result<void> probe_type1() {
    MOAT_LET(const FileDescriptor container, open_container());
    if (call(container, VFIO_GET_API_VERSION, nullptr) != VFIO_API_VERSION)
        return fail(ErrorCode::unsupported, "unsupported version of the kernel's VFIO");
    if (call(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0)
        return fail(ErrorCode::unsupported, "VFIO has no type1: run modprobe vfio_iommu_type1");
    return {};
}

Result<std::unique_ptr<KernelDomain>> create_type1_domain() {
    MOAT_TRY(probe_type1());
    MOAT_LET(FileDescriptor container, open_container());
    return std::make_unique<Type1Domain>(std::move(container));
}

} // namespace moat::machine::vfio_host
