// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DeviceDriver: what the drivers of the audit share: obtaining buffers, interrupts, and waiting.
// The engine does not know it.
#pragma once

#include "moat/core/function_ref.hpp"

#include "audit/driver.hpp"

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <memory>

namespace moat::audit {

/// A part of a BAR, which lives longer.
class Window final : public machine::Registers {
  public:
    /// [offset, offset + size) lies in `bar`; `offset` is a multiple of 8.
    Window(machine::Registers& bar, std::uint64_t offset, std::uint64_t size)
        : Registers(ByteCount(size)), bar_(bar), offset_(offset) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t offset, machine::Width width) override {
        return bar_.read(offset_ + offset, width);
    }

    void do_write(std::uint64_t offset, machine::Width width, std::uint64_t value) override {
        bar_.write(offset_ + offset, width, value);
    }

    machine::Registers& bar_;
    const std::uint64_t offset_;
};

/// A device may claim any number of units: what exceeds 2^63 bytes is left out. `unit` is not 0.
[[nodiscard]] constexpr Medium medium_of(std::uint64_t units, ByteCount unit) {
    const std::uint64_t most = (std::uint64_t{1} << 63) / unit.value();
    return {.size = ByteCount(std::min(units, most) * unit.value()), .unit = unit};
}

constexpr std::uint64_t page_bytes = 4096;

/// How many pages the data touch.
[[nodiscard]] constexpr std::uint64_t pages_of(const Request& request) {
    if (request.length == ByteCount(0))
        return 0;
    return (request.data.value() % page_bytes + request.length.value() + page_bytes - 1) /
           page_bytes;
}

/// Calls each(start, bytes) for the part of the data in each page.
template <class Each>
void each_page_of(const Request& request, Each&& each) {
    const std::uint64_t end = request.data.value() + request.length.value();
    for (std::uint64_t at = request.data.value(); at != end;) {
        const std::uint64_t next = std::min(end, at / page_bytes * page_bytes + page_bytes);
        each(at, next - at);
        at = next;
    }
}

struct KeptBuffer {
    Buffer& buffer;
    Need need;
};

/// A driver of the seat's function. Turns bus mastering off at its end.
class DeviceDriver : public Driver {
  public:
    ~DeviceDriver() override { seat_.function.set_bus_master(false); }

  protected:
    DeviceDriver(std::string_view name, std::span<const Operation> operations, const Seat& seat,
                 const Medium& medium = {})
        : Driver(name, operations, medium), seat_(seat) {}

    [[nodiscard]] machine::Function& function() const { return seat_.function; }

    /// Obtains every buffer, in order. Errors: those of the seat.
    [[nodiscard]] Result<void> obtain(std::initializer_list<KeptBuffer> wanted);

    /// Enables up to `wanted` vectors; a function without MSI-X is polled. Errors:
    /// Function::enable_interrupts', except unsupported.
    [[nodiscard]] Result<void> enable_interrupts(unsigned wanted);

    [[nodiscard]] unsigned vectors() const { return vectors_; }

    [[nodiscard]] Result<void> health() const { return seat_.machine.health(); }

    /// Return: whether `happened()` within `longest`. Errors: the machine's health.
    [[nodiscard]] Result<bool> wait_until(FunctionRef<bool()> happened,
                                          std::chrono::nanoseconds longest);

    /// The same with a timeout as an error: io, with `message`.
    [[nodiscard]] Result<void> require(FunctionRef<bool()> happened,
                                       std::chrono::nanoseconds longest, const char* message);

    /// Waits for interrupt `vector`, if there are interrupts, and then for `completed()`: 20 ms,
    /// and `longest` more unless the device `is_broken()`. Return: whether both happened. Errors:
    /// the machine's health.
    [[nodiscard]] Result<bool>
    wait_for_completion(unsigned vector, FunctionRef<bool()> completed,
                        FunctionRef<bool()> is_broken,
                        std::chrono::nanoseconds longest = std::chrono::seconds(5));

  private:
    const Seat seat_;
    unsigned vectors_ = 0;
};

/// Starts a driver on a BAR, with its prepare(). Errors: the BAR's, and prepare's.
template <class D>
[[nodiscard]] Result<std::unique_ptr<Driver>> started(const Seat& seat, unsigned bar) {
    MOAT_LET(machine::Registers* const registers, seat.function.bar(bar));
    auto driver = std::make_unique<D>(seat, *registers);
    MOAT_TRY(driver->prepare());
    return driver;
}

} // namespace moat::audit
