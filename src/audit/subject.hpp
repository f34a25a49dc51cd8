// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The devices that an audit can start by name, each alone in a machine, and the errors that can be
// injected. The audit's engine and judge do not know of injections.
#pragma once

#include "audit/audit.hpp"
#include "machine/qemu/iommu_model.hpp"
#include "machine/soft/data_phase.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace moat::machine::qemu {
class QemuMachine;
} // namespace moat::machine::qemu

namespace moat::audit {

class Injector;

/// The injected error. On the soft machine the device commits it unless noted; for QEMU's devices
/// the driver does.
enum class Injection : std::uint8_t {
    none,
    overrun,        ///< the device writes past the buffer; QEMU's gets a longer length
    underrun,       ///< it starts before the buffer
    late,           ///< it writes again after completion; for QEMU's, the driver unmaps too early
    stale,          ///< it uses the addresses of the previous operation
    read_only,      ///< it writes to a read-only buffer
    short_transfer, ///< it omits the end of the data
    short_buffer,  ///< the driver gives a longer length than the buffer's, also on the soft machine
    no_invalidate, ///< stale addresses, without invalidating the IOTLB
    wrong_data,    ///< it mixes data up; QEMU's gets the position beside the right one
};

inline constexpr std::array<std::string_view, 10> injection_names = {
    "none",      "overrun",        "underrun",     "late",          "stale",
    "read-only", "short-transfer", "short-buffer", "no-invalidate", "wrong-data"};

[[nodiscard]] constexpr std::string_view name(Injection injection) {
    return injection_names[static_cast<std::size_t>(injection)];
}

struct Wrong {
    Injection what = Injection::none;
    std::uint64_t bytes = 64;          ///< how far; drivers round up to their device's granule
    std::chrono::nanoseconds delay{0}; ///< of `late`, from the command's start; soft machine only
};

/// A device that can be named.
struct Kind {
    std::string_view machine; ///< "soft", "qemu", "vfio", "vfio-user"
    std::string_view name;
    std::string_view summary;
    bool by_default = true; ///< audited if no device is named
    /// Its address in its machine; nothing for "vfio", where the host decides.
    std::optional<machine::Bdf> address = {};
    std::string_view socket = {}; ///< of "vfio-user": a server's, which the caller keeps
    bool shares_memory = false;   ///< of "vfio-user": the server maps memory and does not ask
    /// Of "qemu": what the device is behind.
    machine::qemu::IommuModel iommu = machine::qemu::IommuModel::intel;
};

/// The device of the vfio-user server at `socket`, whatever it is.
[[nodiscard]] inline Kind vfio_user_kind(std::string_view socket, bool shares_memory = false) {
    return {.machine = "vfio-user",
            .name = "device",
            .summary = "the device of a vfio-user server",
            .socket = socket,
            .shares_memory = shares_memory};
}

/// The device of this host at `address`, if vfio-pci is its driver. Errors: not_found (`words`
/// lists what vfio-pci has); unsupported (no driver here supports it); the machine's.
[[nodiscard]] Result<Kind> vfio_kind_at(machine::Bdf address, std::string& words);

[[nodiscard]] std::span<const Kind> kinds();

/// What an audit cannot see because of the device's IOMMU, in sentences; empty if nothing.
[[nodiscard]] std::string_view limits_of(const Kind& kind);

/// A machine with one device, ready to be audited.
class Subject {
  public:
    /// `kind` is one of kinds(), or a result of vfio_kind_at or vfio_user_kind. Errors: the
    /// machine's; `words` then gets QEMU's messages.
    [[nodiscard]] static Result<std::unique_ptr<Subject>>
    start(const Kind& kind, const Wrong& wrong, std::string* words = nullptr);

    ~Subject();
    Subject(const Subject&) = delete;
    Subject& operator=(const Subject&) = delete;

    [[nodiscard]] machine::Machine& machine() { return *machine_; }

    [[nodiscard]] machine::Bdf address() const { return address_; }

    /// Options that the machine and the driver require; the others have their defaults.
    [[nodiscard]] AuditOptions options();

    /// Replaces the injected error. No options() of before are in use.
    void inject(const Wrong& wrong);

    /// How many errors were injected; 0 if no operation of the device takes so many bytes.
    [[nodiscard]] std::uint64_t wronged() const;

    /// Null unless the machine is QEMU.
    [[nodiscard]] machine::qemu::QemuMachine* qemu();

  private:
    Subject(std::unique_ptr<machine::Machine> machine, machine::Bdf address, const Wrong& wrong,
            std::unique_ptr<machine::soft::MovingModel> model = nullptr);

    std::unique_ptr<machine::soft::MovingModel> model_; ///< of the soft machine
    std::unique_ptr<machine::Machine> machine_;
    const machine::Bdf address_;
    std::unique_ptr<Injector> injector_;
};

} // namespace moat::audit
