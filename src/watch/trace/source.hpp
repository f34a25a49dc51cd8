// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TraceSource: the DmaEvents of the running kernel, from a tracefs instance. The command `watch`
// polls it; pages, records and order are decoded beside this file.
#pragma once

#include "moat/core/result.hpp"

#include "fault/dma_event.hpp"

#include <chrono>
#include <cstddef>
#include <expected>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace moat::watch {

struct SourceOptions {
    /// PCI addresses ("0000:00:04.0", "00:04.0") or names of drivers ("nvme"); empty: all devices.
    std::vector<std::string> devices = {};
    /// Records the kernel's stack of each map and allocation.
    bool stacks = false;
    /// Reads this tracefs instance, which uses up its records, and changes none of its settings;
    /// empty: creates one and removes it.
    std::string instance = {};
    /// The ring buffer of each CPU, in KiB; 0: 4096, or less on machines with over 64 CPUs.
    std::size_t buffer_kib = 0;
    /// Where proc, sys and dev lie.
    std::filesystem::path root = "/";
};

/// Not thread-safe. The destructor removes the instance and the probes that it created.
class TraceSource {
  public:
    /// How often `poll` is due, if no descriptor is ready before.
    static constexpr std::chrono::milliseconds poll_interval{100};

    /// Begins to trace; first removes instances and probes that dead processes left behind. The
    /// error is one sentence: what is missing (tracefs, root, the IOMMU, a device) and what to do.
    [[nodiscard]] static std::expected<TraceSource, std::string>
    begin(const SourceOptions& options);

    TraceSource(TraceSource&&) noexcept;
    TraceSource& operator=(TraceSource&&) noexcept;
    ~TraceSource();

    /// What it reads from this kernel and what it cannot see, one sentence each.
    [[nodiscard]] std::vector<std::string> sources() const;

    /// The `device` addresses that `options.devices` named; empty: all devices.
    [[nodiscard]] const std::vector<std::string>& devices() const;

    /// Descriptors that become readable (POLLIN) when a buffer is half full.
    [[nodiscard]] std::vector<int> descriptors() const;

    /// Reads what is there, without blocking. Passes on, in the order of their times, the events
    /// that no unread event can precede; the first call begins with Kind::device events. An error
    /// (io) leaves the events that were read for the next call.
    Result<void> poll(fault::DmaEventSink sink);

    /// Stops tracing (an instance of its own) and passes on the rest.
    Result<void> finish(fault::DmaEventSink sink);

  private:
    class State;
    explicit TraceSource(std::unique_ptr<State> state);

    std::unique_ptr<State> state_;
};

} // namespace moat::watch
