// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The devices that an audit can start by name, each alone in a machine, and what can be made wrong
// about them on purpose. The audit's engine and judge see none of the latter.
#pragma once

#include "audit/audit.hpp"
#include "machine/qemu/qemu_machine.hpp"

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moat::audit {

/// What is wrong. On the soft machine the device is, or its driver where it says so; QEMU's devices
/// are what they are, so there the driver is.
enum class Injection : std::uint8_t {
    none,
    overrun,        ///< the device goes on past the buffer; QEMU's is told of a longer one
    underrun,       ///< it begins before the buffer
    late,           ///< it writes again after completion; for QEMU's, the driver unmaps too early
    stale,          ///< the addresses of the operation before are used
    read_only,      ///< it writes what it may only read
    short_transfer, ///< it leaves the end of the data out
    short_buffer,   ///< the driver tells of more than there is, also on the soft machine
    no_invalidate,  ///< stale addresses, and an IOTLB that is not invalidated
};

inline constexpr std::array<std::string_view, 9> injection_names = {
    "none",      "overrun",        "underrun",     "late",         "stale",
    "read-only", "short-transfer", "short-buffer", "no-invalidate"};

[[nodiscard]] constexpr std::string_view name(Injection injection) {
    return injection_names[static_cast<std::size_t>(injection)];
}

struct Wrong {
    Injection what = Injection::none;
    std::uint64_t bytes = 64; ///< how far; a driver rounds up to what its device can be told
};

/// A device that there is by name.
struct Kind {
    std::string_view machine; ///< "soft", "qemu", "vfio"
    std::string_view name;
    std::string_view summary;
    bool by_default = true; ///< audited where none is named
    /// Where it is found in its machine; the host says where those of "vfio" are.
    std::optional<machine::Bdf> address = {};
};

/// The device of this host at `address`, which vfio-pci has. Errors: not_found, which names what
/// there is in `words`; unsupported (no driver here knows it), and those of the machine.
[[nodiscard]] Result<Kind> vfio_kind_at(machine::Bdf address, std::string& words);

[[nodiscard]] std::span<const Kind> kinds();

/// A machine with one device, ready to be audited.
class Subject {
  public:
    /// `kind` is one of kinds(), or what vfio_kind_at returned. Errors: the machine's; `words` gets
    /// what QEMU said then.
    [[nodiscard]] static Result<std::unique_ptr<Subject>>
    start(const Kind& kind, const Wrong& wrong, std::string* words = nullptr);

    virtual ~Subject() = default;
    Subject(const Subject&) = delete;
    Subject& operator=(const Subject&) = delete;

    [[nodiscard]] virtual machine::Machine& machine() = 0;

    [[nodiscard]] virtual machine::Bdf address() { return machine().functions().front().address; }

    /// What an audit of it must know of the machine and the driver; the rest is as it is.
    [[nodiscard]] virtual AuditOptions options() = 0;

    /// How often something was done wrong on purpose: never, where no operation of the device can
    /// be told of so many bytes.
    [[nodiscard]] virtual std::uint64_t wronged() const = 0;

    /// Nothing where it is not QEMU's.
    [[nodiscard]] virtual machine::qemu::QemuMachine* qemu() { return nullptr; }

  protected:
    Subject() = default;
};

} // namespace moat::audit
