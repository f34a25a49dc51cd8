// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The backends' part beside mapping: probing, and attaching functions. One class each;
// vfio_machine.cpp calls them.
#pragma once

#include "machine/vfio_host/kernel_domain.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/file_descriptor.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace moat::machine::vfio_host {

/// A function in a domain, as long as this and its open file live.
class Attachment {
  public:
    virtual ~Attachment() = default;
    Attachment(const Attachment&) = delete;
    Attachment& operator=(const Attachment&) = delete;

    /// The device's file. Errors: busy (another process has it open), io.
    [[nodiscard]] virtual Result<platform::FileDescriptor> open_device() = 0;

  protected:
    Attachment() = default;
};

class HostDomain : public KernelDomain {
  public:
    /// Adds the part below 2^57 of a range that the kernel reports, `last` inclusive: IOMMUs with
    /// five levels and the IOVA allocator end there. AMD's driver reports all 2^64.
    static void add_reachable(std::vector<IovaRange>& ranges, std::uint64_t first,
                              std::uint64_t last) {
        constexpr std::uint64_t topmost = (std::uint64_t{1} << 57) - 1;
        if (first <= last && first <= topmost)
            ranges.push_back(IovaRange::inclusive(Iova(first), Iova(std::min(last, topmost))));
    }

    /// Errors: unsupported (no IOMMU, or insufficient isolation), refused (no right), busy,
    /// not_found (no file: not bound to vfio-pci), mismatch, io.
    [[nodiscard]] virtual Result<std::unique_ptr<Attachment>> attach(const HostFunction& function,
                                                                     std::string_view root) = 0;
};

class Type1Domain final : public HostDomain {
  public:
    /// Whether /dev/vfio/vfio offers type 1. Errors: not_found, refused, unsupported.
    [[nodiscard]] static Result<void> probe();

    /// Errors: probe's.
    [[nodiscard]] static Result<std::unique_ptr<HostDomain>> create();

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override;
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override;
    [[nodiscard]] Result<std::optional<std::uint32_t>> mappings_left() const override;
    [[nodiscard]] Result<std::unique_ptr<Attachment>> attach(const HostFunction& function,
                                                             std::string_view root) override;

  private:
    struct Info;
    class GroupOfFunctions;
    class AttachmentByGroup;

    explicit Type1Domain(platform::FileDescriptor container) : container_(std::move(container)) {}

    Result<std::shared_ptr<GroupOfFunctions>> join(unsigned group);
    [[nodiscard]] Result<Info> info() const;
    Result<void> learn();
    /// One call. Return: whether it succeeded; errno has the reason.
    bool map_piece(Iova start, ByteCount size, PhysicalAddress memory, Attributes attributes);

    platform::FileDescriptor container_;
    std::map<unsigned, std::weak_ptr<GroupOfFunctions>> groups_;
    bool has_iommu_ = false;
};

class IommufdDomain final : public HostDomain {
  public:
    /// Whether there are /dev/iommu and device files. Errors: not_found, refused.
    [[nodiscard]] static Result<void> probe();

    /// Errors: probe's, io.
    [[nodiscard]] static Result<std::unique_ptr<HostDomain>> create();

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override;
    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override;

    [[nodiscard]] Result<std::optional<std::uint32_t>> mappings_left() const override {
        return std::nullopt;
    }

    [[nodiscard]] Result<std::unique_ptr<Attachment>> attach(const HostFunction& function,
                                                             std::string_view root) override;

  private:
    IommufdDomain(platform::FileDescriptor iommufd, std::uint32_t ioas)
        : iommufd_(std::move(iommufd)), ioas_(ioas) {}

    Result<void> learn();

    platform::FileDescriptor iommufd_;
    std::uint32_t ioas_;
};

} // namespace moat::machine::vfio_host
