// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Objects of an iommufd: their numbers, uses and ends, and the requests that make them.
#include "run/vfio_kernel/iommufd.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

#include <utility>

namespace moat::run::vfio {

namespace uapi = machine::vfio_host::uapi;

Answer Iommufd::request(unsigned long request, std::span<std::byte> argument) {
    switch (request) {
    case uapi::destroy:
        return answer(destroy(argument));
    case uapi::ioas_allocate:
        return answer(allocate_ioas(argument));
    case uapi::ioas_allow_iovas:
        return answer(allow(argument));
    case uapi::ioas_copy:
        return answer(copy(argument));
    case uapi::ioas_iova_ranges:
        return answer(ranges(argument));
    case uapi::ioas_map:
        return answer(map(argument));
    case uapi::ioas_unmap:
        return answer(unmap(argument));
    case uapi::option:
        return answer(option(argument));
    case uapi::hwpt_allocate:
        return answer(allocate_hwpt(argument));
    case uapi::hardware_info:
        return answer(hardware_info(argument));
    default:
        return answer(ENOTTY);
    }
}

std::uint32_t Iommufd::add(std::variant<Ioas, Hwpt, Bound> object) {
    std::uint32_t free = 1;
    for (auto each = objects_.begin(); each != objects_.end() && each->first == free; ++each)
        ++free;
    objects_.emplace(free, std::move(object));
    return free;
}

bool Iommufd::used(std::uint32_t object) const {
    return std::ranges::any_of(objects_, [&](const auto& each) {
        const auto* const hwpt = std::get_if<Hwpt>(&each.second);
        const auto* const bound = std::get_if<Bound>(&each.second);
        return (hwpt != nullptr && hwpt->ioas == object) ||
               (bound != nullptr && (bound->hwpt == object || each.first == object));
    });
}

std::uint32_t Iommufd::bind(Device device) {
    return add(Bound{.device = device});
}

void Iommufd::unbind(std::uint32_t object) {
    detach(object);
    objects_.erase(object);
}

std::uint32_t Iommufd::object_of(Device device) const {
    for (const auto& [object, each] : objects_)
        if (const auto* const bound = std::get_if<Bound>(&each);
            bound != nullptr && bound->device == device)
            return object;
    return 0;
}

void Iommufd::release() {
    for (auto& [object, each] : objects_)
        if (auto* const ioas = std::get_if<Ioas>(&each))
            (void)ioas->mappings.remove_all();
    objects_.clear();
}

void Iommufd::release_table(std::uint32_t hwpt) {
    const Hwpt* const table = find<Hwpt>(hwpt);
    if (table != nullptr && table->automatic && !used(hwpt))
        objects_.erase(hwpt);
}

int Iommufd::attach(std::uint32_t object, std::uint32_t& table) {
    if (!objects_.contains(table))
        return ENOENT;
    const auto* const named = find<Hwpt>(table);
    const std::uint32_t number = named != nullptr ? named->ioas : table;
    const Ioas* const ioas = find<Ioas>(number);
    if (ioas == nullptr)
        return EINVAL;
    if (!fits(*ioas, {.alignment = host_->page(), .ranges = host_->limits.aperture}))
        return EADDRINUSE;
    std::uint32_t hwpt = named != nullptr ? table : 0;
    for (auto each = objects_.begin(); hwpt == 0 && each != objects_.end(); ++each)
        if (const auto* const other = std::get_if<Hwpt>(&each->second);
            other != nullptr && other->automatic && other->ioas == number)
            hwpt = each->first;
    const Space space = ioas->mappings.space();
    if (hwpt == 0)
        hwpt = add(Hwpt{.ioas = number, .automatic = true});
    Bound& bound = *find<Bound>(object);
    const std::uint32_t before = std::exchange(bound.hwpt, hwpt);
    host_->effects.attach(bound.device, space);
    release_table(before);
    table = hwpt;
    return 0;
}

void Iommufd::detach(std::uint32_t object) {
    Bound& bound = *find<Bound>(object);
    if (bound.hwpt == 0)
        return;
    host_->effects.attach(bound.device, Space::none);
    release_table(std::exchange(bound.hwpt, 0));
}

int Iommufd::destroy(std::span<std::byte> argument) {
    uapi::Destroy destroy;
    if (const int error = take_sized(argument, sizeof destroy, destroy))
        return error;
    const auto found = objects_.find(destroy.object);
    if (found == objects_.end())
        return ENOENT;
    if (used(destroy.object))
        return EBUSY;
    if (auto* const ioas = std::get_if<Ioas>(&found->second))
        (void)ioas->mappings.remove_all();
    objects_.erase(found);
    return 0;
}

int Iommufd::allocate_ioas(std::span<std::byte> argument) {
    uapi::IoasAllocate allocate;
    if (const int error = take_sized(argument, sizeof allocate, allocate))
        return error;
    if (allocate.flags != 0)
        return EOPNOTSUPP;
    allocate.ioas = add(Ioas{.mappings = Mappings(*host_)});
    give(argument, allocate, allocate.bytes);
    return 0;
}

int Iommufd::allocate_hwpt(std::span<std::byte> argument) {
    uapi::HwptAllocate allocate;
    if (const int error = take_sized(argument, offsetof(uapi::HwptAllocate, data_type), allocate))
        return error;
    // Neither nesting, nor dirty tracking, nor faults of the device are there.
    if (allocate.flags != 0 || allocate.reserved != 0 || allocate.reserved_too != 0)
        return EOPNOTSUPP;
    if (allocate.data_type == 0 && allocate.data_bytes != 0)
        return EINVAL;
    if (find<Bound>(allocate.device) == nullptr)
        return ENOENT;
    const Ioas* const ioas = find<Ioas>(allocate.page_table);
    if (ioas == nullptr)
        return EINVAL;
    if (allocate.data_type != 0)
        return EOPNOTSUPP;
    if (!fits(*ioas, table_limits()))
        return EADDRINUSE;
    allocate.hwpt = add(Hwpt{.ioas = allocate.page_table});
    give(argument, allocate, allocate.bytes);
    return 0;
}

int Iommufd::hardware_info(std::span<std::byte> argument) {
    uapi::HardwareInfo info;
    if (const int error = take_sized(argument, offsetof(uapi::HardwareInfo, capabilities), info))
        return error;
    constexpr std::uint32_t reserved = 0xffff'ff00;
    if (info.flags != 0 || (info.pasid_bits & reserved) != 0)
        return EOPNOTSUPP;
    if (find<Bound>(info.device) == nullptr)
        return ENOENT;
    // The IOMMU is none that a program knows: there is nothing to say of it.
    const std::vector<std::byte> zeros(std::min<std::uint32_t>(info.data_bytes, 4096));
    if (!zeros.empty())
        if (const int error = host_->effects.write_memory(info.data, zeros))
            return error;
    info.data_bytes = 0;
    info.data_type = 0;
    info.pasid_bits = 0;
    info.capabilities = 0;
    give(argument, info, info.bytes);
    return 0;
}

int Iommufd::option(std::span<std::byte> argument) {
    uapi::Option option;
    if (const int error = take_sized(argument, sizeof option, option))
        return error;
    if (option.reserved != 0)
        return EOPNOTSUPP;
    Ioas* ioas = nullptr;
    if (option.option == uapi::Option::huge_pages) {
        ioas = find<Ioas>(option.object);
        if (ioas == nullptr)
            return ENOENT;
    } else if (option.option != uapi::Option::rlimit_mode || option.object != 0) {
        return EOPNOTSUPP;
    }
    if (option.operation == uapi::Option::get) {
        option.value = ioas != nullptr ? std::uint64_t{ioas->huge_pages} : rlimit_mode_;
        give(argument, option, option.bytes);
        return 0;
    }
    if (option.operation != uapi::Option::set)
        return EOPNOTSUPP;
    if (ioas == nullptr && !objects_.empty())
        return EBUSY;
    // Mapped pages are not split afterwards.
    const bool splits = ioas != nullptr && ioas->huge_pages && option.value == 0 &&
                        used(option.object) && ioas->mappings.size() != 0;
    if (option.value > 1 || splits)
        return EINVAL;
    if (ioas != nullptr)
        ioas->huge_pages = option.value != 0;
    else
        rlimit_mode_ = option.value;
    return 0;
}

} // namespace moat::run::vfio
