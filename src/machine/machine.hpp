// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Machine: where devices live. Their functions, registers and interrupts, the memory that they
// share with the CPU, and the domains that bound them. Drivers and the audit call it; the folders
// beside this file implement it. Why classes and not a concept: docs/design/machine.md.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/function_ref.hpp"
#include "moat/core/result.hpp"
#include "moat/core/types.hpp"
#include "moat/fault/record.hpp"

#include "machine/domain.hpp"
#include "machine/pci.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace moat::machine {

/// The width of an access; its offset is a multiple.
enum class Width : std::uint8_t { bits8 = 1, bits16 = 2, bits32 = 4, bits64 = 8 };

/// What a read of an absent device returns.
[[nodiscard]] constexpr std::uint64_t all_ones(Width width) {
    return low_bits(8 * static_cast<unsigned>(width));
}

/// Registers of a function: a BAR, or its configuration space. Like a bus, it never fails: writes
/// are posted (in order, and complete before the next read or wait), and reads of an absent device
/// return all ones. Machine::health reports why it is absent.
class Registers {
  public:
    virtual ~Registers() = default;
    Registers(const Registers&) = delete;
    Registers& operator=(const Registers&) = delete;

    [[nodiscard]] ByteCount size() const { return size_; }

    /// `offset` lies inside and is a multiple of the width; anything else is a programmer's error.
    [[nodiscard]] std::uint64_t read(std::uint64_t offset, Width width) {
        check(offset, width);
        return do_read(offset, width);
    }

    void write(std::uint64_t offset, Width width, std::uint64_t value) {
        check(offset, width);
        do_write(offset, width, value);
    }

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

    /// 64 bits as two writes of 32, the lower first.
    void write_halves(std::uint64_t offset, std::uint64_t value) {
        write32(offset, static_cast<std::uint32_t>(value));
        write32(offset + 4, static_cast<std::uint32_t>(value >> 32));
    }

  protected:
    explicit Registers(ByteCount size) : size_(size) {}

  private:
    [[nodiscard]] virtual std::uint64_t do_read(std::uint64_t offset, Width width) = 0;
    virtual void do_write(std::uint64_t offset, Width width, std::uint64_t value) = 0;

    void check(std::uint64_t offset, Width width) const {
        const auto bytes = static_cast<std::uint64_t>(width);
        MOAT_CHECK(offset % bytes == 0 && offset < size_.value() && bytes <= size_.value() - offset,
                   "an access lies inside of its registers, at a multiple of its width");
    }

    const ByteCount size_;
};

/// Calls visit(offset, id) for each capability in `config`, until it returns true. A list without
/// an end is left after as many as fit into configuration space.
void each_capability(Registers& config, FunctionRef<bool(unsigned, std::uint8_t)> visit);

/// Return: the offset of an extended capability in `config`; 0 if there is none, or no extended
/// configuration space.
[[nodiscard]] unsigned find_extended_capability(Registers& config, unsigned id);

/// One open PCI function: its BARs are assigned, bus mastering is off. Used by one thread at a
/// time; its machine outlives it. Its destructor turns bus mastering off.
class Function {
  public:
    virtual ~Function() = default;
    Function(const Function&) = delete;
    Function& operator=(const Function&) = delete;

    [[nodiscard]] const FunctionInfo& info() const { return info_; }

    [[nodiscard]] virtual Registers& config() = 0;

    /// The registers of memory BAR `index`; they live as long as the function.
    /// Errors: not_found (no such BAR), unsupported (ports), io.
    [[nodiscard]] Result<Registers*> bar(unsigned index);

    /// Whether it may access memory and send interrupts.
    void set_bus_master(bool allowed);

    /// Enables MSI-X with up to `wanted` vectors, each unmasked. The function is attached to a
    /// domain; a machine that receives interrupts in memory maps a page of it
    /// (docs/design/machine.md). Return: how many, at least one. Errors: unsupported (no MSI-X),
    /// refused (not attached), io.
    [[nodiscard]] virtual Result<unsigned> enable_interrupts(unsigned wanted) = 0;

    /// Whether `vector` was raised since the last call that returned true; does not wait. False for
    /// a disabled vector.
    [[nodiscard]] virtual bool take_interrupt(unsigned vector) = 0;

    /// Restores its state after opening, by a function-level reset if it supports one. Errors:
    /// unsupported, io.
    [[nodiscard]] virtual Result<void> reset() = 0;

  protected:
    explicit Function(const FunctionInfo& info) : info_(info) {}

  private:
    /// Called once for a memory BAR that the function has.
    [[nodiscard]] virtual Result<std::unique_ptr<Registers>> open_bar(unsigned index) = 0;

    const FunctionInfo info_;
    std::array<std::unique_ptr<Registers>, 6> bars_;
};

class Machine;

/// Memory that the CPU reaches and, once mapped in a domain, devices. The destructor returns it to
/// its machine, which zeroes it; it is unmapped before.
class SharedMemory {
  public:
    SharedMemory(Machine& owner, std::span<std::byte> bytes, PhysicalAddress physical)
        : owner_(&owner), bytes_(bytes), physical_(physical) {}

    SharedMemory(SharedMemory&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), bytes_(other.bytes_),
          physical_(other.physical_) {}

    SharedMemory& operator=(SharedMemory&&) = delete;

    ~SharedMemory();

    /// The CPU's view.
    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

    /// The address that Domain::map takes: a physical one, or on Linux this process's own.
    [[nodiscard]] PhysicalAddress physical() const { return physical_; }

    [[nodiscard]] ByteCount size() const { return ByteCount(bytes_.size()); }

  private:
    Machine* owner_;
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

    /// Every function except bridges, by address; constant.
    [[nodiscard]] std::span<const FunctionInfo> functions() const { return infos_; }

    /// Errors: not_found, busy (already open), io.
    [[nodiscard]] virtual Result<std::unique_ptr<Function>> open(Bdf address) = 0;

    /// An empty domain, which the machine outlives. Errors: no_memory, unsupported, io.
    [[nodiscard]] virtual Result<std::unique_ptr<Domain>> create_domain() = 0;

    /// On return the function's accesses go through `domain`, of this machine. An unattached
    /// function reaches nothing. Errors: not_found, busy (already attached), io.
    [[nodiscard]] virtual Result<void> attach(Bdf function, Domain& domain) = 0;

    /// On return the function reaches nothing. Errors: not_found, io.
    [[nodiscard]] virtual Result<void> detach(Bdf function) = 0;

    /// Zeroed memory of `size`, rounded up to pages of 4K, aligned to 2^alignment_lg2.
    /// Errors: empty, no_memory.
    [[nodiscard]] virtual Result<SharedMemory> allocate(ByteCount size,
                                                        unsigned alignment_lg2 = 12) = 0;

    /// Calls each(record) for what the IOMMU recorded since the last call, oldest first, and clears
    /// the records. Return: how many faults were lost, as far as the IOMMU reports it. Errors: io.
    [[nodiscard]] virtual Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) = 0;

    /// Sends posted writes, then runs devices until `happened()` or for `longest`.
    [[nodiscard]] virtual Wait wait_until(FunctionRef<bool()> happened,
                                          std::chrono::nanoseconds longest) = 0;

    /// Runs `work` once: now or, if answers come from another process, during the next wait for
    /// one, in finish_meanwhile at the latest. `work` uses only the machine's memory. See
    /// Meanwhile.
    virtual void do_meanwhile(FunctionRef<void()> work) { work(); }

    virtual void finish_meanwhile() {}

    /// The clock of this machine's devices and of wait_until: monotonic, with an arbitrary start.
    [[nodiscard]] virtual std::chrono::nanoseconds now() {
        return std::chrono::steady_clock::now().time_since_epoch();
    }

    /// Fails once the machine has failed (its process died, hangs or sends invalid answers); the
    /// error gives the reason, and every later call fails with it.
    [[nodiscard]] virtual Result<void> health() const { return {}; }

  protected:
    Machine() = default;

    std::vector<FunctionInfo> infos_;

  private:
    friend SharedMemory;

    /// Of a machine that allocates.
    virtual void release_shared(PhysicalAddress /*physical*/, ByteCount /*size*/) {}
};

inline SharedMemory::~SharedMemory() {
    if (owner_ != nullptr)
        owner_->release_shared(physical_, size());
}

/// Work to run during the machine's next wait, and before this object's end at the latest.
class Meanwhile {
  public:
    /// `work` outlives this object.
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
