// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// RingReader: the pages of an instance's CPUs, read without blocking into a TimeOrder; and the time
// of the instance's clock.
#pragma once

#include "moat/core/result.hpp"

#include "event_catalog.hpp"
#include "platform/file_descriptor.hpp"
#include "ring_page.hpp"
#include "time_order.hpp"

#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <string>
#include <vector>

namespace moat::watch {

class RingReader {
  public:
    /// Opens the rings of an instance. The error is a sentence: a file is missing, or the clock
    /// does not count nanoseconds.
    [[nodiscard]] static std::expected<RingReader, std::string>
    open(const std::filesystem::path& instance, const PageLayout& layout);

    /// Reads what is there. Return: the time before which no later read has records. An error (io)
    /// leaves the rings of this CPU and later ones unread.
    Result<std::uint64_t> read(const EventCatalog& catalog, TimeOrder& order);

    /// The CPUs' numbers are below this.
    [[nodiscard]] unsigned cpus() const;

    [[nodiscard]] std::vector<int> descriptors() const;

    /// "mono", "local".
    [[nodiscard]] const std::string& clock() const { return clock_; }

    /// Now, in the instance's clock.
    [[nodiscard]] std::uint64_t now_ns() const;

  private:
    struct Cpu {
        unsigned number = 0;
        platform::FileDescriptor pages = {};
        std::filesystem::path stats = {};
    };

    RingReader() = default;

    /// Return: the time up to which the CPU's ring is read; the largest one if it is empty.
    Result<std::uint64_t> read_cpu(const Cpu& cpu, const EventCatalog& catalog, TimeOrder& order);

    std::vector<Cpu> cpus_;
    PageLayout layout_;
    std::vector<std::byte> page_;
    std::string clock_;
};

} // namespace moat::watch
