// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: Linux, Documentation/filesystems/proc.rst (numa_maps) and admin-guide/mm/transhuge.rst
// (thp_split_pud).
#include "moat/core/bits.hpp"

#include "command/bar_work.hpp"
#include "machine/vfio_host/vfio_machine.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <span>
#include <string>

namespace moat::tools {

namespace {

using namespace machine::vfio_host;

constexpr unsigned leaf_lg2 = 30;

std::optional<std::uint64_t> count_splits() {
    std::ifstream in("/proc/vmstat");
    std::string name;
    std::uint64_t value = 0;
    while (in >> name >> value)
        if (name == "thp_split_pud")
            return value;
    return std::nullopt;
}

struct LargestBar {
    machine::Bdf function;
    unsigned index = 0;
    ByteCount size;
};

std::optional<LargestBar> find_bar(std::span<const machine::FunctionInfo> functions,
                                   std::optional<machine::Bdf> wanted) {
    std::optional<LargestBar> largest;
    for (const machine::FunctionInfo& each : functions)
        for (unsigned i = 0; i != each.bars.size(); ++i)
            if ((!wanted || each.address == *wanted) && each.bars[i].prefetchable &&
                each.bars[i].kind != machine::BarKind::ports &&
                (!largest || each.bars[i].size > largest->size))
                largest = {each.address, i, each.bars[i].size};
    return largest;
}

class KernelBarWalk final : public BarWork {
  public:
    Result<void> open(std::optional<machine::Bdf> wanted) {
        // iommufd maps no BARs.
        MOAT_LET(machine_, VfioMachine::open({.backend = Backend::type1}));
        MOAT_TRY(take_bar(wanted));
        MOAT_TRY(choose_iova());
        MOAT_TRY(report());
        splits_before_ = count_splits();
        return {};
    }

    ~KernelBarWalk() override {
        if (!function_)
            return;
        function_.reset();
        MOAT_CHECK(machine_->detach(device_).has_value(), "what was attached can be detached");
    }

    [[nodiscard]] machine::Bdf device() const { return device_; }

    [[nodiscard]] ByteCount bar() const override { return ByteCount(bar_.size()); }

    Result<void> round(FunctionRef<void()> step) override {
        touch();
        step();
        const PhysicalAddress memory(reinterpret_cast<std::uintptr_t>(bar_.data()));
        MOAT_TRY(domain_->map(iova_, bar(), memory, read_write));
        step();
        MOAT_TRY(domain_->unmap(iova_, bar()));
        count_round(bar_.size());
        return {};
    }

    Result<void> report() override {
        const platform::FileDescriptor file(::open("/proc/self/numa_maps", O_RDONLY | O_CLOEXEC));
        if (file.get() < 0)
            return platform::fail_errno("cannot read /proc/self/numa_maps: the kernel is built "
                                        "without CONFIG_NUMA?",
                                        ErrorCode::unsupported);
        std::array<char, 16384> text;
        ssize_t size = 0;
        while ((size = ::read(file.get(), text.data(), text.size())) > 0) {
        }
        if (size < 0)
            return platform::fail_errno("cannot read /proc/self/numa_maps to its end");
        return {};
    }

    /// Lost are leaves of 1 GiB of any process, as the kernel counts them.
    [[nodiscard]] Counts counts() const override {
        Counts counts{.retries = domain_->map_retries()};
        if (const auto now = count_splits(); now && splits_before_)
            counts.lost_leaves = *now - *splits_before_;
        return counts;
    }

    [[nodiscard]] std::string errno_name(const Error& error) const override {
        const std::uint64_t* const number = error.find("errno");
        const char* const name =
            number != nullptr ? ::strerrorname_np(static_cast<int>(*number)) : nullptr;
        return name != nullptr ? name : std::string(moat::name(error.code()));
    }

  private:
    Result<void> take_bar(std::optional<machine::Bdf> wanted) {
        const auto found = find_bar(machine_->functions(), wanted);
        if (!found)
            return fail(ErrorCode::not_found,
                        "no function bound to vfio-pci has a prefetchable BAR, and reading another "
                        "BAR may have effects; bind one with moat bind");
        MOAT_LET(domain_, machine_->create_kernel_domain());
        MOAT_TRY(machine_->attach(found->function, *domain_));
        auto opened = machine_->open(found->function);
        if (!opened) {
            (void)machine_->detach(found->function);
            return std::unexpected(opened.error());
        }
        device_ = found->function;
        function_ = std::move(*opened);
        MOAT_LET(bar_, machine_->bar_memory(found->function, found->index));
        return {};
    }

    /// An IOVA aligned for the largest leaf, outside of reserved ranges.
    Result<void> choose_iova() {
        const iommu::DomainLimits& limits = domain_->limits();
        constexpr std::uint64_t step = std::uint64_t{1} << leaf_lg2;
        std::uint64_t start = align_up(limits.aperture.start().value(), leaf_lg2);
        for (; start <= limits.aperture.last().value(); start += step) {
            const auto fits = iommu::check_limits(limits, Iova(start), bar());
            if (fits) {
                iova_ = Iova(start);
                return {};
            }
            if (fits.error().code() != ErrorCode::overlap)
                break;
        }
        return fail(ErrorCode::no_space, "the device's aperture has no range as large as its BAR",
                    {"size", bar_.size()});
    }

    /// Faults in the leaves that a reader removed, by the largest that fits.
    void touch() const {
        constexpr std::size_t step = std::size_t{2} << 20;
        for (std::size_t at = 0; at < bar_.size(); at += step)
            (void)*reinterpret_cast<const volatile std::uint32_t*>(bar_.data() + at);
    }

    std::unique_ptr<VfioMachine> machine_;
    std::unique_ptr<KernelDomain> domain_;
    std::unique_ptr<machine::Function> function_;
    machine::Bdf device_;
    std::span<std::byte> bar_;
    Iova iova_;
    std::optional<std::uint64_t> splits_before_;
};

} // namespace

Result<std::unique_ptr<BarWork>> kernel_bar_walk(std::optional<machine::Bdf> wanted,
                                                 machine::Bdf& device) {
    auto walk = std::make_unique<KernelBarWalk>();
    MOAT_TRY(walk->open(wanted));
    device = walk->device();
    return walk;
}

} // namespace moat::tools
