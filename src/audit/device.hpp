// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Device: what the drivers of the audit share: obtaining buffers, interrupts, and waiting.
// One source file per driver uses it; the engine does not.
#pragma once

#include "moat/core/function_ref.hpp"

#include "audit/driver.hpp"

#include <chrono>
#include <initializer_list>
#include <memory>
#include <utility>

namespace moat::audit {

/// A buffer that a driver keeps, and what it needs.
struct KeptBuffer {
    Buffer& buffer;
    Need need;
};

/// A function and its machine. Turns bus mastering off at its end.
class Device {
  public:
    Device(machine::Machine& machine, machine::Function& function)
        : machine_(machine), function_(function) {}

    ~Device() { function_.set_bus_master(false); }

    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    [[nodiscard]] machine::Function& function() const { return function_; }

    /// Obtains every buffer, in order. Errors: those of `source`.
    [[nodiscard]] static Result<void> obtain(BufferSource& source,
                                             std::initializer_list<KeptBuffer> wanted);

    /// Enables up to `wanted` vectors; a function without MSI-X is polled. Errors:
    /// Function::enable_interrupts', except unsupported.
    [[nodiscard]] Result<void> enable_interrupts(unsigned wanted);

    /// How many vectors are enabled.
    [[nodiscard]] unsigned vectors() const { return vectors_; }

    [[nodiscard]] Result<void> health() const { return machine_.health(); }

    /// Return: whether `happened()` within `longest`. Errors: the machine's health.
    [[nodiscard]] Result<bool> wait_until(FunctionRef<bool()> happened,
                                          std::chrono::nanoseconds longest);

    /// The same with a timeout as an error: io, with `message`.
    [[nodiscard]] Result<void> require(FunctionRef<bool()> happened,
                                       std::chrono::nanoseconds longest, const char* message);

    /// Waits for interrupt `vector`, if there are interrupts, and then for `completed()`: 20 ms,
    /// and 5 s more unless the device `is_broken()`. Return: whether both happened. Errors: the
    /// machine's health.
    [[nodiscard]] Result<bool> wait_for_completion(unsigned vector, FunctionRef<bool()> completed,
                                                   FunctionRef<bool()> is_broken);

  private:
    machine::Machine& machine_;
    machine::Function& function_;
    unsigned vectors_ = 0;
};

/// Starts a driver with its prepare(buffers). Errors: prepare's.
template <class D>
[[nodiscard]] Result<std::unique_ptr<Driver>> prepared(std::unique_ptr<D> driver,
                                                       BufferSource& buffers) {
    if (const auto done = driver->prepare(buffers); !done)
        return std::unexpected(done.error());
    return driver;
}

} // namespace moat::audit
