// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SheetBench: runs single operations of a driver with guards at chosen distances from its buffers,
// and reports what happened around them. sheet.hpp derives numbers from it.
#pragma once

#include "audit/audit.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace moat::audit {

/// Where unmapped memory begins, seen from a buffer.
struct Fit {
    enum Kind : std::uint8_t {
        wide,  ///< sheet_reach away, on both sides
        left,  ///< `distance` before the buffer
        right, ///< `distance` after it
        cut,   ///< `distance` after its first byte, inside
    };

    Kind kind = wide;
    std::uint64_t distance = 0; ///< the buffer's alignment may increase it
};

/// A buffer and the mapped memory around it, which has canaries.
struct Spot {
    std::string_view label;
    Direction direction = Direction::bidirectional;
    IovaRange range = {};
    IovaRange mapped = {};
    std::span<std::byte> memory = {}; ///< of `mapped`

    [[nodiscard]] std::uint64_t before() const { return (range.start() - mapped.start()).value(); }

    /// Bytes of the buffer that are mapped: all, unless it is cut.
    [[nodiscard]] std::uint64_t inside() const {
        return std::min(range.size().value(), memory.size() - before());
    }

    [[nodiscard]] std::uint64_t after() const { return memory.size() - before() - inside(); }

    [[nodiscard]] std::span<std::byte> bytes() const { return memory.subspan(before(), inside()); }
};

/// Changed canaries around a buffer.
struct Written {
    std::uint64_t before = 0; ///< from the first changed byte to the buffer
    std::uint64_t after = 0;
    std::uint64_t rest_of_page = 0; ///< how many in the buffer's own pages
};

/// A blocked access beyond a buffer's mapped memory.
struct Blocked {
    bool is_left = false;
    bool wrote = false;
    /// From the buffer to the access's far end, if the IOMMU reports bytes.
    std::optional<std::uint64_t> extent = {};
};

struct Ran {
    Answer answer = {};
    std::vector<Spot> given = {}; ///< the lists, then the data; mapped until the next run
    std::uint64_t written = 0;    ///< bytes of the data that changed before the answer
};

/// One function with one driver at a time. Every call's errors are the machine's; start's are also
/// the driver's.
class SheetBench final : private BufferSource {
  public:
    static constexpr std::byte canary{0xc3};

    [[nodiscard]] static Result<std::unique_ptr<SheetBench>>
    create(machine::Machine& machine, machine::Bdf address, const AuditOptions& options);
    ~SheetBench();

    /// Ends the driver, if there is one, and starts another; its buffers lie as `fit` says.
    [[nodiscard]] Result<void> start(Fit fit);

    /// Ends the driver. Its buffers stay mapped until the next start.
    void stop() { driver_.reset(); }

    [[nodiscard]] Driver& driver() { return *driver_; }

    [[nodiscard]] machine::Function& function() { return *function_; }

    [[nodiscard]] std::span<const Spot> kept() const { return kept_; }

    /// Runs an operation with data and lists as `fit` says.
    [[nodiscard]] Result<Ran> run(unsigned operation, ByteCount length, Fit fit);

    [[nodiscard]] static Written written_around(const Spot& spot);
    /// How many bytes inside differ from the canary.
    [[nodiscard]] static std::uint64_t written_inside(const Spot& spot);

    [[nodiscard]] Result<void> unmap(const Spot& spot);

    /// Lets the device run for `time`, then collects faults.
    [[nodiscard]] Result<void> settle(std::chrono::nanoseconds time);
    /// Those since the last run began.
    [[nodiscard]] std::vector<Blocked> blocked_beside(const Spot& spot) const;
    /// Whether an access to the spot's own memory, which was unmapped, was blocked.
    [[nodiscard]] bool is_blocked_inside(const Spot& spot) const;

    void wait(std::chrono::nanoseconds time);

    [[nodiscard]] std::chrono::nanoseconds now() { return machine_.now(); }

    [[nodiscard]] Result<void> health() const { return machine_.health(); }

  private:
    SheetBench(machine::Machine& machine, machine::Bdf address, const AuditOptions& options,
               machine::SharedMemory memory, std::optional<machine::SharedMemory> decoys);

    [[nodiscard]] machine::Domain& domain() { return wrapped_ ? *wrapped_ : *domain_; }

    [[nodiscard]] Result<void> open();
    [[nodiscard]] Result<Buffer> obtain(const Need& need) override;
    [[nodiscard]] Result<Spot> place(const Need& need, Fit fit);
    [[nodiscard]] Result<void> unmap_all(std::vector<Spot>& spots);

    machine::Machine& machine_;
    const machine::Bdf address_;
    const AuditOptions& options_;
    machine::SharedMemory memory_;
    std::optional<machine::SharedMemory> decoys_;
    std::unique_ptr<machine::Domain> domain_;
    std::unique_ptr<machine::Domain> wrapped_;
    bool attached_ = false;
    std::unique_ptr<machine::Function> function_;
    std::unique_ptr<Driver> driver_;
    Fit fit_; ///< of the driver's buffers
    std::vector<Spot> kept_;
    std::vector<Spot> given_;
    std::vector<fault::Record> faults_;
    std::uint64_t next_window_ = 0;
    std::uint64_t next_offset_ = 0;
    std::uint64_t kept_windows_ = 0;
    std::uint64_t kept_offset_ = 0;
};

} // namespace moat::audit
