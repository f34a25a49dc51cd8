// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Where devices live: their functions, registers and interrupts, memory they share with the CPU,
// and the domains that bound them. The models are in the folders beside this file; drivers and the
// audit call it. Why classes and not a concept: docs/design/machine.md.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/fault/record.hpp"

#include "machine/domain.hpp"
#include "machine/pci.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

namespace moat::machine {

/// How wide an access is. Its offset is a multiple of it.
enum class Width : std::uint8_t { bits8 = 1, bits16 = 2, bits32 = 4, bits64 = 8 };

/// Registers of a function: a BAR, or its configuration space. As on a bus, nothing here fails:
/// writes are posted (they arrive in order, at the latest before the next read or wait), and a read
/// of a device that is gone gives all ones. Machine::health says why it is gone.
class Registers {
  public:
    virtual ~Registers() = default;
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;

    [[nodiscard]] virtual ByteCount size() const = 0;

    /// `offset` lies inside and is a multiple of the width: else a programmer's error.
    [[nodiscard]] virtual std::uint64_t read(std::uint64_t offset, Width width) = 0;
    virtual void write(std::uint64_t offset, Width width, std::uint64_t value) = 0;

    [[nodiscard]] std::uint8_t read8(std::uint64_t offset) {
        return static_cast<std::uint8_t>(read(offset, Width::bits8));
    }

    [[nodiscard]] std::uint16_t read16(std::uint64_t offset) {
        return static_cast<std::uint16_t>(read(offset, Width::bits16));
    }

    [[nodiscard]] std::uint32_t read32(std::uint64_t offset) {
        return static_cast<std::uint32_t>(read(offset, Width::bits32));
    }

    [[nodiscard]] std::uint64_t read64(std::uint64_t offset) { return read(offset, Width::bits64); }

    void write8(std::uint64_t offset, std::uint8_t value) { write(offset, Width::bits8, value); }

    void write16(std::uint64_t offset, std::uint16_t value) { write(offset, Width::bits16, value); }

    void write32(std::uint64_t offset, std::uint32_t value) { write(offset, Width::bits32, value); }

    void write64(std::uint64_t offset, std::uint64_t value) { write(offset, Width::bits64, value); }

  protected:
    Registers() = default;
};

/// One PCI function, opened: its BARs are assigned, and it may not master the bus yet. Used by one
/// thread at a time; ends before its machine. On destruction mastering is turned off again.
class Function {
  public:
    virtual ~Function() = default;
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;

    [[nodiscard]] virtual const FunctionInfo& info() const = 0;

    [[nodiscard]] virtual Registers& config() = 0;

    /// The registers of memory BAR `index`; they live as long as the function.
    /// Errors: not_found (no such BAR), unsupported (ports), io.
    [[nodiscard]] virtual Result<Registers*> bar(unsigned index) = 0;

    /// Whether it may access memory and send interrupts.
    virtual void set_bus_master(bool allowed) = 0;

    /// Turns MSI-X on with up to `wanted` vectors, each unmasked. The function is attached to a
    /// domain; a machine whose interrupts are seen in memory maps a page of it (docs/design).
    /// Return: how many, at least one. Errors: unsupported (no MSI-X), refused (not attached), io.
    [[nodiscard]] virtual Result<unsigned> enable_interrupts(unsigned wanted) = 0;

    /// Whether `vector` was raised since the last call that returned true; never waits. False for
    /// a vector that is not enabled.
    [[nodiscard]] virtual bool take_interrupt(unsigned vector) = 0;

    /// Back to how it was opened, by a function-level reset where it has one.
    /// Errors: unsupported, io.
    [[nodiscard]] virtual Result<void> reset() = 0;

  protected:
    Function() = default;
};

/// Memory that the CPU and, once it is mapped in a domain, devices reach. Returns to its machine by
/// itself, zeroed for the next user; it is mapped nowhere by then.
class SharedMemory {
  public:
    /// Whoever made it takes it back.
    class Owner {
      public:
        virtual void release_shared(PhysicalAddress physical, ByteCount size) = 0;

      protected:
        ~Owner() = default;
    };

    SharedMemory(Owner& owner, std::span<std::byte> bytes, PhysicalAddress physical)
        : owner_(&owner), bytes_(bytes), physical_(physical) {}

    SharedMemory(SharedMemory&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), bytes_(other.bytes_),
          physical_(other.physical_) {}

    SharedMemory& operator=(SharedMemory&&) = delete;
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;

    ~SharedMemory() {
        if (owner_ != nullptr)
            owner_->release_shared(physical_, size());
    }

    /// Where the CPU sees it.
    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

    /// By what Domain::map names it: a physical address, or on Linux this process's own.
    [[nodiscard]] PhysicalAddress physical() const { return physical_; }

    [[nodiscard]] ByteCount size() const { return ByteCount(bytes_.size()); }

  private:
    Owner* owner_;
    std::span<std::byte> bytes_;
    PhysicalAddress physical_;
};

enum class Wait : std::uint8_t { happened, timed_out };

class Machine {
  public:
    virtual ~Machine() = default;
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    /// "soft", "qemu", "vfio"
    [[nodiscard]] virtual std::string_view name() const = 0;

    /// Every function but bridges, in the order of their addresses; constant.
    [[nodiscard]] virtual std::span<const FunctionInfo> functions() const = 0;

    /// Errors: not_found, busy (opened already), io.
    [[nodiscard]] virtual Result<std::unique_ptr<Function>> open(Bdf address) = 0;

    /// An empty domain; ends before the machine. Errors: no_memory, unsupported, io.
    [[nodiscard]] virtual Result<std::unique_ptr<Domain>> create_domain() = 0;

    /// From the return on the function's accesses go through `domain`, of this machine. A function
    /// that is attached to none reaches nothing. Errors: not_found, busy (attached already), io.
    [[nodiscard]] virtual Result<void> attach(Bdf function, Domain& domain) = 0;

    /// From the return on the function reaches nothing. Errors: not_found, io.
    [[nodiscard]] virtual Result<void> detach(Bdf function) = 0;

    /// Zeroed memory of `size`, rounded up to pages of 4K, aligned to 2^alignment_lg2.
    /// Errors: empty, no_memory.
    [[nodiscard]] virtual Result<SharedMemory> allocate(ByteCount size,
                                                        unsigned alignment_lg2 = 12) = 0;

    /// Hands out what the IOMMU recorded since the last call, oldest first, and clears it.
    /// Return: how many faults it says or admits to have lost. Errors: io.
    [[nodiscard]] virtual Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) = 0;

    /// Sends what is posted, then lets devices run until `happened()` or for `longest` at most.
    [[nodiscard]] virtual Wait wait_until(FunctionRef<bool()> happened,
                                          std::chrono::nanoseconds longest) = 0;

    /// Does `work` once: now, or where answers come from elsewhere, while the next one is waited
    /// for, in finish_meanwhile at the latest. It uses nothing of the machine but memory.
    /// Meanwhile calls both.
    virtual void do_meanwhile(FunctionRef<void()> work) { work(); }

    virtual void finish_meanwhile() {}

    /// The clock of this machine's devices: monotonic, from an unsaid start; the time of
    /// wait_until.
    [[nodiscard]] virtual std::chrono::nanoseconds now() = 0;

    /// An error from the moment on when the machine is of no use any more (its process died, does
    /// not answer, or answers nonsense); it says why, and every call fails in the same way.
    [[nodiscard]] virtual Result<void> health() const = 0;

  protected:
    Machine() = default;
};

/// Work that is done while the machine is waited for next, and by the end of this object's life.
class Meanwhile {
  public:
    /// `work` outlives it.
    Meanwhile(Machine& machine, FunctionRef<void()> work) : machine_(machine) {
        machine.do_meanwhile(work);
    }

    ~Meanwhile() { machine_.finish_meanwhile(); }

    Meanwhile(const Meanwhile&) = delete;
    Meanwhile& operator=(const Meanwhile&) = delete;

  private:
    Machine& machine_;
};

} // namespace moat::machine
