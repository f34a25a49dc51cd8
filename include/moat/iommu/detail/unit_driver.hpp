// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// UnitDriver: the base of a unit's driver. It has the driver's lock and tables, the numbers of its
// domains, and tables whose last invalidation failed.
#pragma once

#include "moat/core/result.hpp"
#include "moat/iommu/detail/domain_numbers.hpp"
#include "moat/iommu/detail/unit_tables.hpp"
#include "moat/iommu/unit_registers.hpp"
#include "moat/sync/lock.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace moat::iommu {

/// `Count`: of the tables that live as long as the driver.
template <UnitRegisters Registers_, TableMemory Memory_, SyncPolicy Sync_, std::size_t Count>
class UnitDriver {
  public:
    using Registers = Registers_;
    using Memory = Memory_;
    using Sync = Sync_;

    UnitDriver(const UnitDriver&) = delete;
    UnitDriver& operator=(const UnitDriver&) = delete;

    [[nodiscard]] Memory& memory() const { return memory_; }

    /// Allocates a number for a domain, from 1 on. Errors: limit.
    [[nodiscard]] Result<std::uint16_t> take_domain_number() {
        const ExclusiveLock lock(mutex_);
        return numbers_.take();
    }

    /// Call after its functions are detached: invalidates what is cached under the number first.
    void give_domain_number_back(std::uint16_t number) {
        const ExclusiveLock lock(mutex_);
        numbers_.give_back(number);
    }

    /// Keeps tables that the unit may still use after a failed invalidation, until translation is
    /// disabled.
    void keep_until_end(std::shared_ptr<void> tables) {
        const ExclusiveLock lock(mutex_);
        kept_.push_back(std::move(tables));
    }

  protected:
    /// What every driver is made of.
    struct Parts {
        Registers& registers;
        Memory& memory;
        std::array<UnitTable<Memory>, Count> tables;
    };

    /// A `Unit` with tables of 2^bytes_lg2 bytes, made of Parts and `rest`, after its start().
    /// Errors: no_memory, start's.
    template <class Unit, class... Rest>
    static Result<std::unique_ptr<Unit>> open_with(Registers& registers, Memory& memory,
                                                   const std::array<unsigned, Count>& bytes_lg2,
                                                   const Rest&... rest) {
        MOAT_LET(auto tables, allocate_tables(memory, bytes_lg2));
        std::unique_ptr<Unit> unit(new Unit({registers, memory, std::move(tables)}, rest...));
        MOAT_TRY(unit->start());
        return unit;
    }

    /// `numbers` includes 0, which no domain gets.
    UnitDriver(Parts parts, unsigned numbers)
        : registers_(parts.registers), memory_(parts.memory), tables_(std::move(parts.tables)),
          numbers_(numbers) {}

    ~UnitDriver() = default;

    /// After the write of a register: waits until read() has the bits `wanted` of `mask`. Errors:
    /// io.
    template <class Read>
    Result<void> wait_for(std::uint64_t mask, std::uint64_t wanted, const Read& read) {
        for (unsigned attempt = 0;; ++attempt) {
            const std::uint64_t seen = read();
            if ((seen & mask) == wanted)
                return {};
            if (!registers_.relax(attempt))
                return fail(ErrorCode::io, "the IOMMU ignored a register write", {"wanted", wanted},
                            {"seen", seen});
        }
    }

    Registers& registers_;
    Memory& memory_;
    const std::array<UnitTable<Memory>, Count> tables_;
    typename Sync::Mutex mutex_;

  private:
    DomainNumbers numbers_ MOAT_GUARDED_BY(mutex_);
    std::vector<std::shared_ptr<void>> kept_ MOAT_GUARDED_BY(mutex_);
};

} // namespace moat::iommu
