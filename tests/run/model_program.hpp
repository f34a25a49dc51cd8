// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Program: what the state machine of VFIO sees of a program, kept in this process: descriptors, 1
// GiB of memory at an address, and the effects that it had.
#pragma once

#include "moat/core/check.hpp"

#include "run/vfio_kernel/vfio_kernel.hpp"

#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace moat::tests {

class Program final : public run::Effects {
  public:
    static constexpr std::uint64_t memory_start = 0x7000'0000'0000;
    static constexpr std::uint64_t memory_bytes = std::uint64_t{1} << 30;
    static constexpr int first_eventfd = 1000; ///< eventfds have this number or more
    static constexpr int other_file = 900;     ///< open, not an eventfd

    using Interrupt = std::tuple<run::Device, machine::soft::InterruptKind, unsigned>;

    // The state that the effects add up to.
    std::map<run::Space, std::map<std::uint64_t, run::DmaMap>> spaces;
    std::map<run::Device, run::Space> attached;
    std::map<Interrupt, int> eventfds;
    std::map<std::uint64_t, std::byte> memory; ///< bytes that were written, by address
    std::map<int, run::File> files;            ///< by descriptor

    /// What happened besides, one word each.
    std::vector<std::string> events;

    /// A descriptor of `file`.
    [[nodiscard]] int descriptor(run::File file) {
        files[next_] = file;
        return next_++;
    }

    [[nodiscard]] std::size_t mapped() const {
        std::size_t count = 0;
        for (const auto& [space, maps] : spaces)
            count += maps.size();
        return count;
    }

    [[nodiscard]] run::File file_of(int descriptor) override {
        const auto found = files.find(descriptor);
        return found != files.end() ? found->second : run::File::none;
    }

    [[nodiscard]] int map(const run::DmaMap& map) override {
        if (!has(map.memory, map.range.size().value()))
            return EFAULT;
        auto& maps = spaces[map.space];
        const auto next = maps.lower_bound(map.range.start().value());
        MOAT_CHECK(next == maps.end() || !next->second.range.overlaps(map.range),
                   "mappings do not overlap");
        MOAT_CHECK(next == maps.begin() || !std::prev(next)->second.range.overlaps(map.range),
                   "mappings do not overlap");
        maps.emplace(map.range.start().value(), map);
        return 0;
    }

    void map_failed(const run::DmaMap& /*map*/, int /*error*/) override {}

    void unmap(const run::DmaMap& map) override {
        auto& maps = spaces[map.space];
        const auto found = maps.find(map.range.start().value());
        MOAT_CHECK(found != maps.end() && found->second.range == map.range &&
                       found->second.memory == map.memory && found->second.allows == map.allows,
                   "a mapping is unmapped as it was mapped");
        maps.erase(found);
    }

    void attach(run::Device device, run::Space space) override { attached[device] = space; }

    [[nodiscard]] int set_interrupt(run::Device device, machine::soft::InterruptKind kind,
                                    unsigned vector, int descriptor) override {
        const Interrupt interrupt(device, kind, vector);
        if (descriptor < 0) {
            MOAT_CHECK(eventfds.erase(interrupt) == 1, "only an eventfd that there is is removed");
            return 0;
        }
        if (descriptor < other_file)
            return files.contains(descriptor) ? EINVAL : EBADF;
        if (descriptor < first_eventfd)
            return EINVAL;
        eventfds[interrupt] = descriptor;
        return 0;
    }

    void trigger(run::Device device, machine::soft::InterruptKind kind, unsigned vector) override {
        const auto found = eventfds.find({device, kind, vector});
        events.push_back("trigger " +
                         (found != eventfds.end() ? std::to_string(found->second) : "nothing"));
    }

    void mask(run::Device device, machine::soft::InterruptKind /*kind*/, bool masked) override {
        events.push_back((masked ? "mask " : "unmask ") + std::to_string(device));
    }

    void reset(run::Device device) override { events.push_back("reset " + std::to_string(device)); }

    void closed(run::Device device) override {
        events.push_back("closed " + std::to_string(device));
    }

    [[nodiscard]] int read_memory(std::uint64_t address, std::span<std::byte> bytes) override {
        if (!has(address, bytes.size()))
            return EFAULT;
        for (std::byte& each : bytes) {
            const auto found = memory.find(address++);
            each = found != memory.end() ? found->second : std::byte{0};
        }
        return 0;
    }

    [[nodiscard]] int write_memory(std::uint64_t address,
                                   std::span<const std::byte> bytes) override {
        if (!has(address, bytes.size()))
            return EFAULT;
        for (const std::byte each : bytes)
            memory[address++] = each;
        return 0;
    }

  private:
    [[nodiscard]] static bool has(std::uint64_t address, std::uint64_t bytes) {
        return address >= memory_start && bytes <= memory_bytes &&
               address - memory_start <= memory_bytes - bytes;
    }

    int next_ = 3;
};

} // namespace moat::tests
