// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// iommufd: a domain is an I/O address space, which functions join by their own files.
// Source: Linux, Documentation/userspace-api/iommufd.rst and driver-api/vfio.rst.
#include "machine/vfio_host/kernel_domain.hpp"
#include "uapi.hpp"

#include <fcntl.h>
#include <filesystem>

namespace moat::machine::vfio_host {
namespace {

namespace fs = std::filesystem;
using platform::fail_errno;
using platform::FileDescriptor;

Result<FileDescriptor> open_iommufd() {
    return open_file("/dev/iommu",
                     "no /dev/iommu: run modprobe iommufd, or use a kernel with CONFIG_IOMMUFD");
}

/// "vfio0" in /dev/vfio/devices, from the function's sysfs folder; empty if it has none.
std::string device_file(Bdf address, std::string_view root) {
    std::error_code error;
    const fs::path folder = fs::path(root) / "bus/pci/devices" / to_string(address) / "vfio-dev";
    for (const auto& entry : fs::directory_iterator(folder, error))
        return "/dev/vfio/devices/" + entry.path().filename().string();
    return {};
}

class IommufdDomain final : public KernelDomain {
  public:
    IommufdDomain(FileDescriptor iommufd, std::uint32_t ioas)
        : iommufd_(std::move(iommufd)), ioas_(ioas) {}

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override;
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override;
    [[nodiscard]] Result<Attachment> attach(const HostFunction& function,
                                            std::string_view root) override;

  private:
    Result<void> learn();

    FileDescriptor iommufd_;
    std::uint32_t ioas_;
};

Result<Attachment> IommufdDomain::attach(const HostFunction& function, std::string_view root) {
    const std::string name = device_file(function.info.address, root);
    if (name.empty())
        return fail(
            ErrorCode::not_found,
            "the function has no file in /dev/vfio/devices: bind it to vfio-pci (moat bind)");
    MOAT_LET(FileDescriptor opened,
             open_file(name, "the function's file in /dev/vfio/devices is missing: is devtmpfs "
                             "mounted?"));
    const auto file = std::make_shared<const FileDescriptor>(std::move(opened));
    uapi::BindIommufd bind{.iommufd = iommufd_.get()};
    if (call(*file, uapi::device_bind_iommufd, &bind) < 0) {
        if (errno == EPERM)
            return fail_errno("the interrupts of this host are not isolated: turn interrupt "
                              "remapping on, or set iommufd.allow_unsafe_interrupts=1",
                              ErrorCode::refused);
        // EINVAL: the function is bound elsewhere.
        if (errno == EBUSY || errno == EINVAL)
            return fail_errno("another program or domain uses the function", ErrorCode::busy);
        return fail_errno("iommufd rejected the function", ErrorCode::unsupported);
    }
    uapi::AttachIoas attach{.ioas = ioas_};
    if (call(*file, uapi::device_attach_ioas, &attach) < 0)
        return fail_errno("the function does not come into this domain: something is mapped where "
                          "it reaches nothing, or its IOMMU is another",
                          ErrorCode::unsupported);
    MOAT_TRY(learn());
    return [file]() -> Result<FileDescriptor> {
        FileDescriptor device(::fcntl(file->get(), F_DUPFD_CLOEXEC, 0));
        if (device.get() < 0)
            return fail_errno("no more files can be opened: raise ulimit -n", ErrorCode::limit);
        return device;
    };
}

Result<void> IommufdDomain::learn() {
    uapi::IoasIovaRanges ask{.ioas = ioas_};
    std::vector<vfio_iova_range> ranges;
    // Without enough room the call fails and reports the count.
    while (call(iommufd_, uapi::ioas_iova_ranges, &ask) < 0) {
        if (errno != EMSGSIZE || ask.count <= ranges.size())
            return fail_errno("cannot query the addresses that the function reaches");
        ranges.resize(ask.count);
        ask.ranges = reinterpret_cast<std::uintptr_t>(ranges.data());
    }
    std::vector<IovaRange> reachable;
    for (std::size_t i = 0; i != ask.count && i != ranges.size(); ++i)
        add_reachable(reachable, ranges[i].start, ranges[i].end);
    // The kernel uses leaves larger than a page but does not report their sizes.
    capabilities_ = {.backend = Backend::iommufd};
    return set_limits(reachable, ask.alignment);
}

Result<void> IommufdDomain::map(Iova start, ByteCount size, PhysicalAddress memory,
                                Attributes attributes) {
    MOAT_TRY(check(start, size, memory));
    const std::uint32_t readable = has(attributes, Attributes::read) ? uapi::IoasMap::readable : 0;
    const std::uint32_t writable = has(attributes, Attributes::write) ? uapi::IoasMap::writable : 0;
    const uapi::IoasMap map{.flags = uapi::IoasMap::fixed_iova | readable | writable,
                            .ioas = ioas_,
                            .virtual_address = memory.value(),
                            .length = size.value(),
                            .iova = start.value()};
    if (call(iommufd_, uapi::ioas_map, &map) < 0)
        return fail_map(start, size);
    return {};
}

Result<void> IommufdDomain::unmap(Iova start, ByteCount size) {
    MOAT_TRY(check(start, size, PhysicalAddress(0)));
    uapi::IoasUnmap unmap{.ioas = ioas_, .iova = start.value(), .length = size.value()};
    if (call(iommufd_, uapi::ioas_unmap, &unmap) == 0)
        return {};
    if (errno == ENOENT)
        return fail(ErrorCode::not_found,
                    "nothing is mapped there, or the range ends inside of a mapping",
                    {"start", start.value()}, {"size", size.value()});
    return fail_errno("the kernel rejected the unmap");
}

} // namespace

Result<void> probe_iommufd() {
    MOAT_TRY(open_iommufd());
    std::error_code error;
    if (!fs::is_directory("/dev/vfio/devices", error))
        return fail(ErrorCode::not_found, "no function has a file in /dev/vfio/devices: bind one "
                                          "(moat bind), with a kernel that has "
                                          "CONFIG_VFIO_DEVICE_CDEV");
    return {};
}

Result<std::unique_ptr<KernelDomain>> create_iommufd_domain() {
    MOAT_LET(FileDescriptor iommufd, open_iommufd());
    uapi::IoasAllocate allocate;
    if (call(iommufd, uapi::ioas_allocate, &allocate) < 0)
        return fail_errno("iommufd cannot create an address space");
    return std::make_unique<IommufdDomain>(std::move(iommufd), allocate.ioas);
}

} // namespace moat::machine::vfio_host
