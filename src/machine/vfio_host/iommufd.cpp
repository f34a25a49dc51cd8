// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iommufd: a domain is an I/O address space, which functions join by their own files.
// Source: Linux, Documentation/userspace-api/iommufd.rst and driver-api/vfio.rst.
#include "host_domain.hpp"
#include "kernel_call.hpp"
#include "uapi.hpp"

#include <fcntl.h>
#include <filesystem>
#include <vector>

namespace moat::machine::vfio_host {
namespace {

namespace fs = std::filesystem;

constexpr const char* no_iommufd =
    "no /dev/iommu: run modprobe iommufd, or use a kernel with CONFIG_IOMMUFD";

class AttachmentByFile final : public Attachment {
  public:
    explicit AttachmentByFile(platform::FileDescriptor file) : file_(std::move(file)) {}

    [[nodiscard]] Result<platform::FileDescriptor> open_device() override {
        platform::FileDescriptor device(::fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
        if (device.get() < 0)
            return platform::fail_errno("no more files can be opened: raise ulimit -n",
                                        ErrorCode::limit);
        return device;
    }

  private:
    platform::FileDescriptor file_;
};

/// "vfio0" in /dev/vfio/devices, from the function's sysfs folder; empty if it has none.
std::string device_file(Bdf address, std::string_view root) {
    std::error_code error;
    const fs::path folder = fs::path(root) / "bus/pci/devices" / to_string(address) / "vfio-dev";
    for (const auto& entry : fs::directory_iterator(folder, error))
        return "/dev/vfio/devices/" + entry.path().filename().string();
    return {};
}

} // namespace

Result<void> IommufdDomain::probe() {
    const auto iommufd = open_file("/dev/iommu", no_iommufd);
    if (!iommufd)
        return std::unexpected(iommufd.error());
    std::error_code error;
    if (!fs::is_directory("/dev/vfio/devices", error))
        return fail(ErrorCode::not_found, "no function has a file in /dev/vfio/devices: bind one "
                                          "(moat bind), with a kernel that has "
                                          "CONFIG_VFIO_DEVICE_CDEV");
    return {};
}

Result<std::unique_ptr<HostDomain>> IommufdDomain::create() {
    auto iommufd = open_file("/dev/iommu", no_iommufd);
    if (!iommufd)
        return std::unexpected(iommufd.error());
    uapi::IoasAllocate allocate;
    if (call(*iommufd, uapi::ioas_allocate, &allocate) < 0)
        return platform::fail_errno("iommufd cannot create an address space");
    std::unique_ptr<HostDomain> domain(new IommufdDomain(std::move(*iommufd), allocate.ioas));
    return domain;
}

Result<std::unique_ptr<Attachment>> IommufdDomain::attach(const HostFunction& function,
                                                          std::string_view root) {
    const std::string name = device_file(function.info.address, root);
    if (name.empty())
        return fail(
            ErrorCode::not_found,
            "the function has no file in /dev/vfio/devices: bind it to vfio-pci (moat bind)");
    auto file = open_file(name, "the function's file in /dev/vfio/devices is missing: is devtmpfs "
                                "mounted?");
    if (!file)
        return std::unexpected(file.error());
    uapi::BindIommufd bind;
    bind.iommufd = iommufd_.get();
    if (call(*file, uapi::device_bind_iommufd, &bind) < 0) {
        if (errno == EPERM)
            return platform::fail_errno("the interrupts of this host are not isolated: turn "
                                        "interrupt remapping on, or set "
                                        "iommufd.allow_unsafe_interrupts=1",
                                        ErrorCode::refused);
        // EINVAL: the function is bound elsewhere.
        if (errno == EBUSY || errno == EINVAL)
            return platform::fail_errno("another program or domain uses the function",
                                        ErrorCode::busy);
        return platform::fail_errno("iommufd rejected the function", ErrorCode::unsupported);
    }
    uapi::AttachIoas attach;
    attach.ioas = ioas_;
    if (call(*file, uapi::device_attach_ioas, &attach) < 0)
        return platform::fail_errno("the function does not come into this domain: something is "
                                    "mapped where it reaches nothing, or its IOMMU is another",
                                    ErrorCode::unsupported);
    if (const auto known = learn(); !known)
        return std::unexpected(known.error());
    return std::make_unique<AttachmentByFile>(std::move(*file));
}

Result<void> IommufdDomain::learn() {
    uapi::IoasIovaRanges ask;
    ask.ioas = ioas_;
    std::vector<uapi::IovaRange> ranges;
    // Without enough room the call fails and reports the count.
    while (call(iommufd_, uapi::ioas_iova_ranges, &ask) < 0) {
        if (errno != EMSGSIZE || ask.count <= ranges.size())
            return platform::fail_errno("cannot query the addresses that the function reaches");
        ranges.resize(ask.count);
        ask.ranges = reinterpret_cast<std::uintptr_t>(ranges.data());
    }
    std::vector<IovaRange> reachable;
    for (std::size_t i = 0; i != ask.count && i != ranges.size(); ++i)
        add_reachable(reachable, ranges[i].first, ranges[i].last);
    // The kernel uses leaves larger than a page but does not report their sizes.
    capabilities_ = {.backend = Backend::iommufd};
    return set_limits(reachable, ask.alignment);
}

Result<void> IommufdDomain::map(Iova start, ByteCount size, PhysicalAddress memory,
                                Attributes attributes) {
    if (const auto good = check(start, size, memory); !good)
        return good;
    uapi::IoasMap map;
    map.flags = uapi::IoasMap::fixed_iova |
                (has(attributes, Attributes::read) ? uapi::IoasMap::readable : 0) |
                (has(attributes, Attributes::write) ? uapi::IoasMap::writable : 0);
    map.ioas = ioas_;
    map.virtual_address = memory.value();
    map.length = size.value();
    map.iova = start.value();
    if (call(iommufd_, uapi::ioas_map, &map) < 0)
        return fail_map(start, size);
    return {};
}

Result<void> IommufdDomain::unmap(Iova start, ByteCount size) {
    if (const auto good = check(start, size, PhysicalAddress(0)); !good)
        return good;
    uapi::IoasUnmap unmap;
    unmap.ioas = ioas_;
    unmap.iova = start.value();
    unmap.length = size.value();
    if (call(iommufd_, uapi::ioas_unmap, &unmap) == 0)
        return {};
    if (errno == ENOENT)
        return fail(ErrorCode::not_found,
                    "nothing is mapped there, or the range ends inside of a mapping",
                    {"start", start.value()}, {"size", size.value()});
    return platform::fail_errno("the kernel rejected the unmap");
}

} // namespace moat::machine::vfio_host
