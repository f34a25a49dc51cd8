// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the audit asks of a device's driver: which operations there are, what memory each needs, and
// what the device says about one. Where the memory lies, and what was touched around it, is not the
// drivers' business: they take what they are given, and believe what the device says.
#pragma once

#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/dma/memory.hpp"

#include "machine/machine.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace moat::audit {

using dma::Direction;

/// Memory as the CPU and as the device see it. The CPU sees the bytes that the driver may use; the
/// device may have been told of more, or of fewer, by whoever made it: that is what an audit is.
struct Buffer {
    Iova iova;
    std::span<std::byte> bytes;
};

/// How long a driver uses what it obtained.
enum class Use : std::uint8_t { always, at_start };

/// Memory that an operation, or a driver for as long as it lives, asks for.
struct Need {
    std::string_view what; ///< "data", "PRP list", "submission queue"; static
    Direction direction = Direction::bidirectional;
    ByteCount size = {};
    unsigned alignment_lg2 = 0;
    Use use = Use::always; ///< at_start: no device knows it once `probe` has returned
};

/// Gives memory for a driver's life: queues, mostly.
class BufferSource {
  public:
    /// Zeroed, and mapped for the device. Errors: no_memory, no_space.
    [[nodiscard]] virtual Result<Buffer> obtain(const Need& need) = 0;

  protected:
    ~BufferSource() = default;
};

/// One thing that a device can be told to do with data of any length within bounds.
struct Operation {
    std::string_view name; ///< "read", "identify"; static
    Direction direction = Direction::from_device;
    unsigned alignment_lg2 = 0; ///< of the data's IOVA
    ByteCount granule{1};       ///< lengths are multiples of it
    ByteCount longest = {};
    ByteCount shortest = {};
    /// How many bytes at most the device writes of longer data; the rest is undefined.
    ByteCount fills{~std::uint64_t{0}};
};

/// What is to be done. `data` may be shorter than `length`: the device is told `length`.
struct Request {
    unsigned operation = 0; ///< its place in Driver::operations
    Iova data;
    ByteCount length;
    std::uint64_t position = 0; ///< on the medium, in the device's own unit
    /// Memory for Driver::lists_for, in its order.
    std::span<const Buffer> lists = {};
};

/// What the device says, which need not be so.
enum class Verdict : std::uint8_t { success, failure, no_answer };

struct Answer {
    Verdict verdict = Verdict::no_answer;
    std::uint64_t code = 0; ///< the device's own
};

/// One device, started and idle between calls. Used by one thread. Ends before its function and
/// its buffers; the device does not touch memory any more then.
class Driver {
  public:
    virtual ~Driver() = default;
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;

    [[nodiscard]] virtual std::string_view name() const = 0;

    [[nodiscard]] virtual std::span<const Operation> operations() const = 0;

    /// Lists (of pages, of segments) that `request` needs beside its data.
    [[nodiscard]] virtual std::vector<Need> lists_for(const Request&) const { return {}; }

    /// Errors: io (the machine is of no use any more), out_of_range (a request that the driver
    /// cannot express). What the device refuses is an Answer.
    [[nodiscard]] virtual Result<Answer> run(const Request& request) = 0;

  protected:
    Driver() = default;
};

/// Drives an attached function, if it knows it: else unsupported. Other errors: io, and those of
/// `buffers`.
using Probe = Result<std::unique_ptr<Driver>> (*)(machine::Machine& machine,
                                                  machine::Function& function,
                                                  BufferSource& buffers);

} // namespace moat::audit
