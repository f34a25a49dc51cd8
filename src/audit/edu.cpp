// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of QEMU's edu device. Source: QEMU, docs/specs/edu.rst.
#include "audit/device.hpp"
#include "audit/drivers.hpp"

#include <array>
#include <chrono>

namespace moat::audit {
namespace {

namespace reg {

constexpr unsigned identification = 0x00;
constexpr unsigned dma_source = 0x80;
constexpr unsigned dma_destination = 0x88;
constexpr unsigned dma_count = 0x90;
constexpr unsigned dma_command = 0x98;

} // namespace reg

constexpr std::uint64_t start = 1;
constexpr std::uint64_t to_memory = 2;
constexpr std::uint64_t device_buffer = 0x40000;
/// 4096 bytes from the buffer's start make QEMU abort.
constexpr ByteCount longest(4095);

constexpr std::array operations_of_edu = {
    Operation{.name = "write", .direction = Direction::to_device, .longest = longest},
    Operation{.name = "read", .direction = Direction::from_device, .longest = longest}};

class Edu final : public Driver {
  public:
    Edu(machine::Machine& machine, machine::Function& function, machine::Registers& registers)
        : device_(machine, function), registers_(registers) {
        function.set_bus_master(true);
    }

    [[nodiscard]] std::string_view name() const override { return "edu"; }

    [[nodiscard]] std::span<const Operation> operations() const override {
        return operations_of_edu;
    }

    [[nodiscard]] Result<Answer> run(const Request& request) override {
        if (request.length > longest || request.position > longest.value() - request.length.value())
            return fail(ErrorCode::out_of_range, "outside edu's buffer",
                        {"position", request.position}, {"length", request.length.value()});
        const bool reads =
            operations_of_edu.at(request.operation).direction == Direction::from_device;
        const std::uint64_t inside = device_buffer + request.position;
        registers_.write64(reg::dma_source, reads ? inside : request.data.value());
        registers_.write64(reg::dma_destination, reads ? request.data.value() : inside);
        registers_.write64(reg::dma_count, request.length.value());
        registers_.write64(reg::dma_command, start | (reads ? to_memory : 0));
        auto idle = [&] { return (registers_.read64(reg::dma_command) & start) == 0; };
        // Each transfer takes 100 ms of the device's time.
        const auto waited = device_.wait_until(idle, std::chrono::seconds(5));
        if (!waited)
            return std::unexpected(waited.error());
        return Answer{*waited ? Verdict::success : Verdict::no_answer};
    }

  private:
    Device device_;
    machine::Registers& registers_;
};

} // namespace

Result<std::unique_ptr<Driver>> probe_edu(machine::Machine& machine, machine::Function& function,
                                          BufferSource&) {
    if (function.info().vendor != 0x1234 || function.info().device != 0x11e8)
        return fail(ErrorCode::unsupported, "not an edu device");
    const auto registers = function.bar(0);
    if (!registers)
        return std::unexpected(registers.error());
    constexpr std::uint32_t expected = 0xed; // revisions above
    if (((*registers)->read32(reg::identification) & 0xff) != expected)
        return fail(ErrorCode::io, "an edu device that does not identify itself");
    return std::make_unique<Edu>(machine, function, **registers);
}

} // namespace moat::audit
