// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A soft machine with one attached device, and memory that it reaches, for tests.
#pragma once

#include "moat/fault/diagnose.hpp"
#include "moat/fault/mapping.hpp"

#include "machine/soft/soft_machine.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::machine::soft {

template <class T>
[[nodiscard]] T need(Result<T> result) {
    MOAT_CHECK(result.has_value(), "what a test prepares succeeds");
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

/// Memory that is mapped for the device; it lives as long as the system.
struct Mapped {
    std::span<std::byte> memory;
    Iova iova;

    [[nodiscard]] std::span<std::byte> bytes() const { return memory; }
};

class System {
  public:
    static constexpr Bdf address{0, 4, 0};

    explicit System(DeviceModel& model) {
        need(machine_.add(address, model));
        function_ = need(machine_.open(address));
        domain_ = need(machine_.create_domain());
        need(machine_.attach(address, *domain_));
        function_->set_bus_master(true);
        registers_ = need(function_->bar(0));
    }

    ~System() {
        need(machine_.detach(address));
        function_.reset();
        domain_.reset();
        memory_.clear();
    }

    System(const System&) = delete;
    System& operator=(const System&) = delete;

    [[nodiscard]] SoftMachine& machine() { return machine_; }

    [[nodiscard]] Function& function() { return *function_; }

    [[nodiscard]] Registers& registers() { return *registers_; }

    /// Maps fresh memory at `iova`, and adds it to the mappings for diagnosis.
    Mapped map(std::uint64_t iova, std::uint64_t size, std::string_view label,
               fault::Allows allows = fault::Allows::read_write) {
        const SharedMemory& memory = memory_.emplace_back(need(machine_.allocate(ByteCount(size))));
        const Attributes attributes = allows == fault::Allows::read    ? Attributes::read
                                      : allows == fault::Allows::write ? Attributes::write
                                                                       : read_write;
        need(domain_->map(Iova(iova), memory.size(), memory.physical(), attributes));
        live_.push_back({.range = {Iova(iova), ByteCount(size)}, .allows = allows, .label = label});
        return {memory.bytes(), Iova(iova)};
    }

    void unmap(const Mapped& mapped) {
        need(domain_->unmap(mapped.iova, ByteCount(mapped.memory.size())));
        const auto found = std::ranges::find_if(
            live_, [&](const auto& each) { return each.range.start() == mapped.iova; });
        history_.note(*found, {});
        live_.erase(found);
    }

    /// Lets the device finish its work.
    void run() {
        const auto never = [] { return false; };
        static_cast<void>(machine_.wait_until(never, std::chrono::seconds(1)));
    }

    /// The faults since the last call.
    [[nodiscard]] std::vector<fault::Diagnosis> faults() {
        std::ranges::sort(live_, {}, [](const auto& each) { return each.range.start(); });
        history_.catch_up();
        std::vector<fault::Diagnosis> found;
        const auto add = [&](const fault::Record& record) {
            found.push_back(fault::diagnose(fault::SortedMappings(live_), history_, record));
        };
        MOAT_CHECK(need(machine_.take_faults(add)) == 0, "no fault was lost");
        return found;
    }

  private:
    SoftMachine machine_;
    std::list<SharedMemory> memory_;
    std::unique_ptr<Domain> domain_;
    std::unique_ptr<Function> function_;
    Registers* registers_ = nullptr;
    std::vector<fault::Mapping> live_;
    fault::History history_{64};
};

} // namespace moat::machine::soft
