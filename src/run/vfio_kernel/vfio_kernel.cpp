// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/vfio_kernel.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"
#include "run/vfio_kernel/device.hpp"
#include "run/vfio_kernel/groups.hpp"
#include "run/vfio_kernel/iommufd.hpp"

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace moat::run {
namespace {

/// Of a device's name and its options, with the end.
constexpr std::size_t most_name_bytes = 64;

} // namespace

using namespace vfio;
namespace uapi = machine::vfio_host::uapi;

class VfioKernel::State {
  public:
    State(std::vector<DeviceShape> devices, VfioLimits limits, Effects& effects)
        : host_{.devices = std::move(devices), .limits = std::move(limits), .effects = effects} {
        MOAT_CHECK(host_.limits.page_sizes != 0, "pages have a size");
        for (Device each = 0; each != host_.devices.size(); ++each) {
            devices_.emplace_back(host_, each);
            const unsigned number = host_.devices[each].group;
            groups_[number].number = number;
            groups_[number].devices.push_back(each);
        }
    }

    [[nodiscard]] Answer open_container() { return opened(std::make_shared<Container>()); }

    [[nodiscard]] Answer open_group(unsigned number) {
        const auto group = groups_.find(number);
        if (group == groups_.end())
            return answer(ENOENT);
        if (group->second.busy())
            return answer(EBUSY);
        group->second.open = true;
        return opened(&group->second);
    }

    [[nodiscard]] Answer open_iommufd() { return opened(std::make_shared<Iommufd>(host_)); }

    [[nodiscard]] Answer open_device(Device device) {
        if (device >= devices_.size())
            return answer(ENOENT);
        return opened(DeviceFile{.device = device,
                                 .group = &groups_.at(host_.devices[device].group),
                                 .by_group = false});
    }

    void close(File file) {
        const auto found = files_.find(file);
        if (found == files_.end())
            return;
        const OpenFile closed = std::move(found->second);
        files_.erase(found);
        latest_ = {};
        if (auto* const group = std::get_if<Group*>(&closed)) {
            (*group)->open = false;
            release(**group);
        } else if (const auto* const device = std::get_if<DeviceFile>(&closed)) {
            close_device(*device);
        } else if (const auto* const iommufd = std::get_if<std::shared_ptr<Iommufd>>(&closed)) {
            release(*iommufd);
        }
    }

    [[nodiscard]] Answer request(File file, unsigned long request, std::uint64_t number,
                                 std::span<std::byte> argument) {
        OpenFile* const open = find(file);
        if (open == nullptr)
            return answer(EBADF);
        if (auto* const container = std::get_if<std::shared_ptr<Container>>(open))
            return container_request(host_, **container, request, number, argument);
        if (auto* const group = std::get_if<Group*>(open)) {
            switch (request) {
            case VFIO_GROUP_SET_CONTAINER:
                return set_container(**group, argument);
            case VFIO_GROUP_GET_DEVICE_FD:
                return device_file(**group, argument);
            default:
                return group_request(host_, **group, request, argument);
            }
        }
        if (auto* const iommufd = std::get_if<std::shared_ptr<Iommufd>>(open))
            return (*iommufd)->request(request, argument);
        return device_request(std::get<DeviceFile>(*open), request, argument);
    }

    [[nodiscard]] std::optional<Device> device_of(File file) const {
        const auto found = files_.find(file);
        if (found == files_.end())
            return std::nullopt;
        const auto* const device = std::get_if<DeviceFile>(&found->second);
        return device != nullptr && device->usable() ? std::optional(device->device) : std::nullopt;
    }

  private:
    /// A device's file: opened through its group, or by itself; then it is used once bound.
    struct DeviceFile {
        Device device = 0;
        Group* group = nullptr;
        bool by_group = true;
        std::shared_ptr<Iommufd> iommufd = {};
        std::uint32_t object = 0;

        [[nodiscard]] bool usable() const { return by_group || iommufd; }
    };

    using OpenFile =
        std::variant<std::shared_ptr<Container>, Group*, DeviceFile, std::shared_ptr<Iommufd>>;

    [[nodiscard]] Answer opened(OpenFile file) {
        const File number{++last_file_};
        files_.emplace(number, std::move(file));
        return {.value = 0, .opened = number};
    }

    [[nodiscard]] OpenFile* find(File file) {
        if (file == latest_.number)
            return latest_.open;
        const auto found = files_.find(file);
        if (found == files_.end())
            return nullptr;
        latest_ = {.number = file, .open = &found->second};
        return latest_.open;
    }

    template <class T>
    [[nodiscard]] T* find_as(int descriptor) {
        OpenFile* const file = descriptor >= 0 ? find(host_.effects.file_of(descriptor)) : nullptr;
        return file != nullptr ? std::get_if<T>(file) : nullptr;
    }

    /// A group without files leaves its container.
    void release(Group& group) {
        if (!group.open && group.device_files == 0)
            leave(host_, group);
    }

    /// An iommufd without files ends; `closed` is the last reference but those of files.
    void release(const std::shared_ptr<Iommufd>& closed) {
        if (closed.use_count() == 1)
            closed->release();
    }

    void close_device(const DeviceFile& file) {
        if (!file.usable())
            return;
        devices_[file.device].close();
        if (file.by_group) {
            --file.group->device_files;
            release(*file.group);
        } else {
            --file.group->bound;
            file.iommufd->unbind(file.object);
            release(file.iommufd);
        }
    }

    [[nodiscard]] Answer device_request(DeviceFile& file, unsigned long request,
                                        std::span<std::byte> argument) {
        if (request == uapi::device_bind_iommufd)
            return answer(bind(file, argument));
        if (!file.usable())
            return answer(EINVAL);
        if (!file.by_group && request == uapi::device_attach_ioas)
            return answer(attach(file, argument));
        if (!file.by_group && request == uapi::device_detach_ioas)
            return answer(detach(file, argument));
        if (request == VFIO_DEVICE_PCI_HOT_RESET)
            return hot_reset(file, argument);
        if (request == VFIO_DEVICE_GET_PCI_HOT_RESET_INFO)
            return hot_reset_info(file, argument);
        return devices_[file.device].request(request, argument);
    }

    [[nodiscard]] int bind(DeviceFile& file, std::span<std::byte> argument) {
        uapi::BindIommufd bind;
        if (const int error = take(argument, sizeof bind, bind))
            return error;
        if (bind.flags != 0 || bind.iommufd < 0 || file.by_group)
            return EINVAL;
        if (file.group->open || file.group->device_files != 0)
            return EBUSY;
        if (file.iommufd)
            return EINVAL;
        const auto* const iommufd = find_as<std::shared_ptr<Iommufd>>(bind.iommufd);
        if (iommufd == nullptr)
            return EBADFD;
        if (devices_[file.device].is_open())
            return EINVAL;
        file.iommufd = *iommufd;
        file.object = file.iommufd->bind(file.device);
        ++file.group->bound;
        devices_[file.device].open();
        bind.device = file.object;
        give(argument, bind);
        return 0;
    }

    [[nodiscard]] static int attach(const DeviceFile& file, std::span<std::byte> argument) {
        uapi::AttachIoas attach;
        if (const int error = take(argument, sizeof attach, attach))
            return error;
        if (attach.flags != 0)
            return EINVAL;
        if (const int error = file.iommufd->attach(file.object, attach.ioas))
            return error;
        give(argument, attach);
        return 0;
    }

    [[nodiscard]] static int detach(const DeviceFile& file, std::span<const std::byte> argument) {
        uapi::DetachIoas detach;
        if (const int error = take(argument, sizeof detach, detach))
            return error;
        if (detach.flags != 0)
            return EINVAL;
        file.iommufd->detach(file.object);
        return 0;
    }

    [[nodiscard]] Answer set_container(Group& group, std::span<const std::byte> argument) {
        std::int32_t descriptor = -1;
        if (!copy_in(argument, 0, descriptor))
            return answer(EFAULT);
        if (descriptor < 0)
            return answer(EBADF);
        const auto* const container = find_as<std::shared_ptr<Container>>(descriptor);
        if (group.container)
            return answer(EINVAL);
        return answer(container == nullptr ? EBADFD : join(host_, group, *container));
    }

    [[nodiscard]] Answer device_file(Group& group, std::span<const std::byte> argument) {
        const auto* const text = reinterpret_cast<const char*>(argument.data());
        const std::string_view all(text, argument.size());
        const std::size_t end = all.find('\0');
        if (end == all.npos)
            return answer(argument.size() < most_name_bytes ? EFAULT : EINVAL);
        const std::string_view name = all.substr(0, end);
        for (const Device each : group.devices) {
            const std::string own = to_string(host_.devices[each].address);
            if (!name.starts_with(own))
                continue;
            const std::string_view options = name.substr(own.size());
            if (!options.empty() && options.front() != ' ')
                continue;
            if (options.find_first_not_of(' ') != options.npos)
                return answer(EINVAL); // they are of virtual functions
            if (!group.container || !group.container->iommu)
                return answer(EINVAL);
            devices_[each].open();
            ++group.device_files;
            return opened(DeviceFile{.device = each, .group = &group});
        }
        return answer(ENODEV);
    }

    [[nodiscard]] Answer hot_reset(const DeviceFile& file, std::span<const std::byte> argument) {
        vfio_pci_hot_reset head{};
        if (const int error = take(argument, sizeof head, head))
            return answer(error);
        if (head.flags != 0 || (!file.by_group && head.count != 0))
            return answer(EINVAL);
        const std::vector<Device> devices = devices_[file.device].on_bus();
        if (devices.empty())
            return answer(ENODEV);
        if (!file.by_group)
            return answer(reset_bound(*file.iommufd, devices));
        if (head.count == 0 || head.count > devices.size())
            return answer(EINVAL);
        std::vector<const Group*> owned;
        for (std::size_t i = 0; i != head.count; ++i) {
            std::int32_t descriptor = -1;
            if (!copy_in(argument, sizeof head + i * sizeof descriptor, descriptor))
                return answer(EFAULT);
            if (descriptor < 0)
                return answer(EBADF);
            Group* const* const group = find_as<Group*>(descriptor);
            if (group == nullptr)
                return answer(EINVAL);
            owned.push_back(*group);
        }
        const auto is_owned = [&](Device each) {
            return std::ranges::find(owned, host_.devices[each].group, &Group::number) !=
                   owned.end();
        };
        if (!std::ranges::all_of(devices, is_owned))
            return answer(EINVAL);
        for (const Device each : devices)
            host_.effects.reset(each);
        return {};
    }

    [[nodiscard]] Answer hot_reset_info(const DeviceFile& file,
                                        std::span<std::byte> argument) const {
        const VfioDevice& device = devices_[file.device];
        if (file.by_group) {
            const auto group = [&](Device each) { return host_.devices[each].group; };
            return device.hot_reset_info(argument, 0, group);
        }
        // Linux: VFIO_PCI_HOT_RESET_FLAG_DEV_ID and ..._OWNED, VFIO_PCI_DEVID_OWNED and
        // ..._NOT_OWNED, which distributions' headers lack.
        constexpr std::uint32_t ids = 1;
        constexpr std::uint32_t all_owned = 2;
        constexpr std::uint32_t not_owned = ~0U;
        const auto object = [&](Device each) {
            const std::uint32_t own = file.iommufd->object_of(each);
            return own == 0 && devices_[each].is_open() ? not_owned : own;
        };
        bool owned = true;
        for (const Device each : device.on_bus())
            owned = owned && object(each) != not_owned;
        return device.hot_reset_info(argument, owned ? ids | all_owned : ids, object);
    }

    /// All of them, if they are this iommufd's or no one's.
    [[nodiscard]] int reset_bound(const Iommufd& iommufd, std::span<const Device> devices) {
        const auto is_owned = [&](Device each) {
            return iommufd.object_of(each) != 0 || !devices_[each].is_open();
        };
        if (!std::ranges::all_of(devices, is_owned))
            return EINVAL;
        for (const Device each : devices)
            host_.effects.reset(each);
        return 0;
    }

    Host host_;
    std::vector<VfioDevice> devices_;
    std::map<unsigned, Group> groups_;

    /// A number and its element of `files_`.
    struct Latest {
        File number = File::none;
        OpenFile* open = nullptr;
    };

    std::map<File, OpenFile> files_;
    Latest latest_; ///< found
    std::uint32_t last_file_ = 0;
};

VfioKernel::VfioKernel(std::vector<DeviceShape> devices, VfioLimits limits, Effects& effects)
    : state_(std::make_unique<State>(std::move(devices), std::move(limits), effects)) {}

VfioKernel::~VfioKernel() = default;

Answer VfioKernel::open_container() {
    return state_->open_container();
}

Answer VfioKernel::open_group(unsigned number) {
    return state_->open_group(number);
}

Answer VfioKernel::open_iommufd() {
    return state_->open_iommufd();
}

Answer VfioKernel::open_device(Device device) {
    return state_->open_device(device);
}

void VfioKernel::close(File file) {
    state_->close(file);
}

std::size_t VfioKernel::argument_bytes(unsigned long request, std::span<const std::byte> first) {
    constexpr std::size_t least = 64; // as much as any structure that Linux reads whole
    switch (request) {
    case VFIO_GET_API_VERSION:
    case VFIO_CHECK_EXTENSION:
    case VFIO_SET_IOMMU:
    case VFIO_GROUP_UNSET_CONTAINER:
    case VFIO_DEVICE_RESET:
        return 0;
    case VFIO_GROUP_SET_CONTAINER:
        return sizeof(std::int32_t);
    case VFIO_GROUP_GET_DEVICE_FD:
        return most_name_bytes;
    default: {
        std::uint32_t argsz = 0;
        (void)copy_in(first, 0, argsz);
        return std::clamp<std::size_t>(argsz, least, most_bytes);
    }
    }
}

Answer VfioKernel::request(File file, unsigned long request, std::uint64_t number,
                           std::span<std::byte> argument) {
    return state_->request(file, request, number, argument);
}

std::optional<Device> VfioKernel::device_of(File file) const {
    return state_->device_of(file);
}

} // namespace moat::run
