// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Asker: puts a request to a world and prints its answer, a line each, for the scripts.
#pragma once

#include "machine/vfio_host/uapi.hpp"
#include "vfio_world.hpp"

#include <array>
#include <cstdio>
#include <cstring>
#include <sys/eventfd.h>
#include <unistd.h>

namespace moat::tests {

inline constexpr std::uint64_t page = 4096;
inline constexpr std::uint64_t memory = Arena::start;
/// A number that is no descriptor. Where a container must be named, the state machine has EBADFD
/// for it.
inline constexpr int no_file = 99'999;

/// 32-bit words of an argument.
using Words = std::vector<std::uint32_t>;

inline void add(Words& words, std::uint64_t value) {
    words.push_back(static_cast<std::uint32_t>(value));
    words.push_back(static_cast<std::uint32_t>(value >> 32U));
}

/// Puts requests to a world and prints its answers.
class Asker {
  public:
    explicit Asker(VfioWorld& world) : world_(&world) {}

    /// Return: the descriptor, or -1.
    int open(const char* what, const std::string& path) { return file(what, world_->open(path)); }

    void close(int descriptor) {
        if (descriptor >= 0)
            world_->close(descriptor);
    }

    std::int64_t number(const char* what, int descriptor, unsigned long request,
                        std::uint64_t argument) {
        const std::int64_t result = world_->ioctl(descriptor, request, argument);
        std::printf("%s(%#lx, %#llx) = %lld\n", what, request & 0xffU,
                    static_cast<unsigned long long>(argument), static_cast<long long>(result));
        return result;
    }

    /// Return: the words as the world left them. At most `reach` bytes of them are in memory.
    Words words(const char* what, int descriptor, unsigned long request, Words words,
                std::size_t reach = ~std::size_t{0}) {
        const std::size_t bytes = words.size() * sizeof words[0];
        const std::uint64_t at =
            reach < bytes ? Arena::end - reach : Arena::end - Arena::argument_bytes;
        const std::size_t there = Arena::reach(at, bytes);
        std::memcpy(reinterpret_cast<void*>(at), words.data(), there);
        const std::int64_t result = world_->ioctl(descriptor, request, at);
        std::printf("%s(%#lx:", what, request & 0xffU);
        for (std::size_t i = 0; i != words.size() && i != most_shown; ++i)
            std::printf(" %x", words[i]);
        std::printf(") = %lld", static_cast<long long>(result));
        std::vector<std::uint32_t> after(words);
        std::memcpy(after.data(), reinterpret_cast<void*>(at), there);
        for (std::size_t i = 0; i != words.size(); ++i)
            if (after[i] != words[i])
                std::printf(" [%zu]=%x", i, after[i]);
        std::printf("\n");
        return after;
    }

    /// As words(), but prints only the result and the last word: the others have a descriptor.
    Words quiet(const char* what, int descriptor, unsigned long request, Words words) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        std::memcpy(reinterpret_cast<void*>(at), words.data(), words.size() * sizeof words[0]);
        const std::int64_t result = world_->ioctl(descriptor, request, at);
        std::memcpy(words.data(), reinterpret_cast<void*>(at), words.size() * sizeof words[0]);
        std::printf("%s(%#lx: %x %x) = %lld %x\n", what, request & 0xffU, words[0], words[1],
                    static_cast<long long>(result), words.back());
        return words;
    }

    int device_file(int group, const std::string& name) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        std::memcpy(reinterpret_cast<void*>(at), name.c_str(), name.size() + 1);
        return file(
            ("device file " + name.substr(0, 5) + "*" + (name.size() > 12 ? name.substr(12) : ""))
                .c_str(),
            world_->ioctl(group, VFIO_GROUP_GET_DEVICE_FD, at));
    }

    int set_container(int group, int container) {
        const std::uint64_t at = Arena::end - Arena::argument_bytes;
        std::memcpy(reinterpret_cast<void*>(at), &container, sizeof container);
        const std::int64_t result = world_->ioctl(group, VFIO_GROUP_SET_CONTAINER, at);
        std::printf("set container = %lld\n", static_cast<long long>(result));
        return static_cast<int>(result);
    }

    [[nodiscard]] VfioWorld& world() { return *world_; }

  private:
    static constexpr std::size_t most_shown = 12;

    static int file(const char* what, std::int64_t result) {
        if (result < 0)
            std::printf("%s = %lld\n", what, static_cast<long long>(result));
        else
            std::printf("%s = file\n", what);
        return result < 0 ? -1 : static_cast<int>(result);
    }

    VfioWorld* world_;
};

/// The eventfds of a device's interrupts, and descriptors that are none.
class Descriptors {
  public:
    Descriptors() {
        for (int& each : eventfds_)
            each = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }

    Descriptors(const Descriptors&) = delete;
    Descriptors& operator=(const Descriptors&) = delete;

    ~Descriptors() {
        for (const int each : eventfds_)
            ::close(each);
    }

    /// 0 to 3: an eventfd; 4: none; 5: no descriptor; 6: another file.
    [[nodiscard]] std::uint32_t operator[](unsigned index) const {
        const int descriptor = index < eventfds_.size() ? eventfds_[index]
                               : index == 4             ? -1
                               : index == 5             ? no_file
                                                        : STDERR_FILENO;
        return static_cast<std::uint32_t>(descriptor);
    }

    /// Prints how often each was signalled.
    void show() const {
        std::printf("signals");
        for (const int each : eventfds_) {
            eventfd_t count = 0;
            (void)::eventfd_read(each, &count);
            std::printf(" %llu", static_cast<unsigned long long>(count));
        }
        std::printf("\n");
    }

  private:
    std::array<int, 4> eventfds_{};
};

/// What does not depend on how a device's file was opened.
void ask_device(Asker& ask, int device);

/// VFIO_DEVICE_SET_IRQS; `values`: indices of Descriptors, or booleans. The answer's line has no
/// descriptor.
void set_interrupts(Asker& ask, const Descriptors& descriptors, int device, std::uint32_t flags,
                    std::uint32_t kind, std::uint32_t start, std::uint32_t count,
                    const std::vector<unsigned>& values, std::int64_t argsz_error = 0);

} // namespace moat::tests
