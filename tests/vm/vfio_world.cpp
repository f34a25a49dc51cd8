// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "vfio_world.hpp"

#include "moat/core/check.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <map>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace moat::tests {
namespace {

class LinuxWorld final : public VfioWorld {
  public:
    [[nodiscard]] std::int64_t open(const std::string& path) override {
        const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        return file < 0 ? -errno : file;
    }

    [[nodiscard]] std::int64_t ioctl(int file, unsigned long request,
                                     std::uint64_t argument) override {
        const int result = ::ioctl(file, request, argument);
        return result < 0 ? -errno : result;
    }

    void close(int file) override { ::close(file); }
};

class ModelWorld final : public VfioWorld, private run::Effects {
  public:
    explicit ModelWorld(const Facts& facts)
        : files_of_devices_(facts.device_files),
          kernel_(facts.devices, {.aperture = facts.aperture, .page_sizes = facts.page_sizes},
                  *this) {}

    [[nodiscard]] std::int64_t open(const std::string& path) override {
        if (path == "/dev/vfio/vfio")
            return opened(kernel_.open_container());
        if (path == "/dev/iommu")
            return opened(kernel_.open_iommufd());
        const std::string name = path.substr(path.rfind('/') + 1);
        const auto device = std::ranges::find(files_of_devices_, name);
        if (device != files_of_devices_.end())
            return opened(
                kernel_.open_device(static_cast<run::Device>(device - files_of_devices_.begin())));
        return opened(
            kernel_.open_group(static_cast<unsigned>(std::strtoul(name.c_str(), nullptr, 10))));
    }

    [[nodiscard]] std::int64_t ioctl(int file, unsigned long request,
                                     std::uint64_t argument) override {
        const std::span<std::byte> first = Arena::at(argument, Arena::reach(argument, 8));
        const std::size_t wanted = run::VfioKernel::argument_bytes(request, first);
        return opened(kernel_.request(file_of(file), request, argument,
                                      Arena::at(argument, Arena::reach(argument, wanted))));
    }

    void close(int file) override {
        kernel_.close(file_of(file));
        files_.erase(file);
    }

  private:
    /// Above every descriptor of this process.
    static constexpr int first_file = 100'000;

    [[nodiscard]] std::int64_t opened(run::Answer answer) {
        if (answer.opened == run::File::none)
            return answer.value;
        files_[next_] = answer.opened;
        return next_++;
    }

    [[nodiscard]] run::File file_of(int descriptor) override {
        const auto found = files_.find(descriptor);
        return found != files_.end() ? found->second : run::File::none;
    }

    [[nodiscard]] int map(const run::DmaMap& map) override {
        const std::uint64_t bytes = map.range.size().value();
        return Arena::reach(map.memory, bytes) == bytes ? 0 : EFAULT;
    }

    void map_failed(const run::DmaMap& /*map*/, int /*error*/) override {}

    void unmap(const run::DmaMap& /*map*/) override {}

    void attach(run::Device /*device*/, run::Space /*space*/) override {}

    [[nodiscard]] int set_interrupt(run::Device device, machine::soft::InterruptKind kind,
                                    unsigned vector, int descriptor) override {
        auto& slot = eventfds_[{device, kind, vector}];
        if (descriptor < 0) {
            slot = -1;
            return 0;
        }
        std::array<char, 64> name{};
        const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
        if (!files_.contains(descriptor) &&
            ::readlink(link.c_str(), name.data(), name.size() - 1) < 0)
            return EBADF;
        if (std::string_view(name.data()) != "anon_inode:[eventfd]")
            return EINVAL;
        slot = descriptor;
        return 0;
    }

    void trigger(run::Device device, machine::soft::InterruptKind kind, unsigned vector) override {
        const auto found = eventfds_.find({device, kind, vector});
        if (found != eventfds_.end() && found->second >= 0)
            (void)::eventfd_write(found->second, 1);
    }

    void mask(run::Device /*device*/, machine::soft::InterruptKind /*kind*/,
              bool /*masked*/) override {}

    void reset(run::Device /*device*/) override {}

    void closed(run::Device /*device*/) override {}

    [[nodiscard]] int read_memory(std::uint64_t address, std::span<std::byte> bytes) override {
        if (Arena::reach(address, bytes.size()) != bytes.size())
            return EFAULT;
        std::ranges::copy(Arena::at(address, bytes.size()), bytes.begin());
        return 0;
    }

    [[nodiscard]] int write_memory(std::uint64_t address,
                                   std::span<const std::byte> bytes) override {
        if (Arena::reach(address, bytes.size()) != bytes.size())
            return EFAULT;
        std::ranges::copy(bytes, Arena::at(address, bytes.size()).begin());
        return 0;
    }

    std::vector<std::string> files_of_devices_;
    run::VfioKernel kernel_;
    std::map<int, run::File> files_ = {};
    std::map<std::tuple<run::Device, machine::soft::InterruptKind, unsigned>, int> eventfds_ = {};
    int next_ = first_file;
};

} // namespace

Arena::Arena() {
    const void* const got =
        ::mmap(reinterpret_cast<void*>(start), bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
    MOAT_CHECK(got == reinterpret_cast<void*>(start), "the arena has its address");
}

std::size_t Arena::reach(std::uint64_t address, std::uint64_t bytes) {
    return address >= start && address < end ? std::min(bytes, end - address) : 0;
}

std::unique_ptr<VfioWorld> linux_world() {
    return std::make_unique<LinuxWorld>();
}

std::unique_ptr<VfioWorld> model_world(const Facts& facts) {
    return std::make_unique<ModelWorld>(facts);
}

} // namespace moat::tests
