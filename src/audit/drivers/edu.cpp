// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of QEMU's edu device. Source: QEMU, docs/specs/edu.rst.
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <array>
#include <chrono>

namespace moat::audit {
namespace edu {

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
    on_medium("write", Content::stores, ByteCount(1), longest),
    on_medium("read", Content::loads, ByteCount(1), longest)};

class Edu final : public DeviceDriver {
  public:
    Edu(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("edu", operations_of_edu, seat, {.size = longest}), registers_(registers) {}

    Result<void> prepare() {
        constexpr std::uint32_t expected = 0xed; // revisions above
        if ((registers_.read32(reg::identification) & 0xff) != expected)
            return fail(ErrorCode::io, "an edu device that does not identify itself");
        function().set_bus_master(true);
        return {};
    }

    [[nodiscard]] Result<Answer> do_run(const Request& request) override {
        if (request.position > longest.value() - request.length.value())
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
        MOAT_LET(const bool waited, wait_until(idle, std::chrono::seconds(5)));
        return Answer{waited ? Verdict::success : Verdict::no_answer};
    }

  private:
    machine::Registers& registers_;
};

} // namespace edu

Result<std::unique_ptr<Driver>> start_edu(const Seat& seat) {
    return started<edu::Edu>(seat, 0);
}

} // namespace moat::audit
