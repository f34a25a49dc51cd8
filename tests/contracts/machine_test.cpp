// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// machine and platform: the soft machine and its models, PCI addresses, memory files, stacks,
// sockets and children. Programmer's errors by contract, so not rows: a register outside its BAR or
// unaligned (machine.hpp: as on a bus, accesses return no error, and a driver knows its registers),
// the numbers of a Bdf that no function has (`parse_bdf` is for texts), a domain of another
// machine, and the options of soft::Nvme, which a test chooses.
#include "moat/core/text.hpp"

#include "contract.hpp"
#include "machine/soft.hpp"
#include "machine/soft/edu.hpp"
#include "machine/soft/nvme.hpp"
#include "machine/vfio_host/kernel_vulnerability.hpp"
#include "machine/vfio_host/pci_devices.hpp"
#include "platform/child_process.hpp"
#include "platform/memory_file.hpp"
#include "platform/stack.hpp"
#include "platform/stream_socket.hpp"

#include <array>
#include <gtest/gtest.h>

namespace moat::tests {
namespace {

using machine::Bdf;
using machine::Width;
using machine::soft::SoftMachine;

const auto always = [] { return true; };
const auto never = [] { return false; };
const auto ignore = [](const fault::Record&) {};

/// A machine with a device of this kind, which lives as long.
template <class Model>
std::shared_ptr<machine::soft::System> system_of() {
    struct Both {
        Model model;
        machine::soft::System system{model};
    };

    const auto both = std::make_shared<Both>();
    return {both, &both->system};
}

/// A domain without attached functions; the machine lives as long.
std::shared_ptr<machine::Domain> domain_of(const std::shared_ptr<machine::soft::System>& soft) {
    machine::Domain* const domain = soft->machine().create_domain()->release();
    return {domain, [soft](machine::Domain* ends) { delete ends; }};
}

template <class Model>
std::vector<Row> soft_machine(const char* name) {
    const auto soft = system_of<Model>();
    const auto domain = domain_of(soft);
    const auto call = [=](const char* what) { return std::string(name) + ", " + what; };
    return {
        {.name = call("allocate"),
         .arguments = {{.name = "size", .good = 0x1000},
                       {.name = "alignment_lg2", .good = 12, .bits = 32}},
         .call = [=](Values v) -> Outcome {
             if (depends_on_host(v[0]) ||
                 depends_on_host(1ULL << std::min<std::uint64_t>(v[1], 63)))
                 return returned;
             const auto memory =
                 soft->machine().allocate(ByteCount(v[0]), static_cast<unsigned>(v[1]));
             EXPECT_TRUE(!memory || memory->size().value() >= v[0]);
             return outcome(memory);
         }},
        {.name = call("open, attach and detach"),
         .arguments = {{.name = "bus", .good = 1, .bits = 8},
                       {.name = "device", .good = 4, .bits = 5},
                       {.name = "function", .good = 0, .bits = 3},
                       {.name = "segment", .good = 0, .bits = 16}},
         .call = [=](Values v) -> Outcome {
             const Bdf address(static_cast<unsigned>(v[0]), static_cast<unsigned>(v[1]),
                               static_cast<unsigned>(v[2]), static_cast<std::uint16_t>(v[3]));
             if (address == soft->address)
                 return returned;
             EXPECT_FALSE(soft->machine().open(address));
             EXPECT_FALSE(soft->machine().attach(address, *domain));
             EXPECT_FALSE(soft->machine().detach(address));
             return returned;
         }},
        {.name = call("bar"),
         .arguments = {{.name = "index", .good = 0, .bits = 32}},
         .call =
             [=](Values v) { return outcome(soft->function().bar(static_cast<unsigned>(v[0]))); }},
        {.name = call("enable_interrupts and take_interrupt"),
         .arguments = {{.name = "wanted", .good = 1, .bits = 32},
                       {.name = "vector", .good = 0, .bits = 32}},
         .call =
             [=](Values v) {
                 const auto enabled =
                     soft->function().enable_interrupts(static_cast<unsigned>(v[0]));
                 EXPECT_FALSE(soft->function().take_interrupt(static_cast<unsigned>(v[1])));
                 return outcome(enabled);
             }},
        {.name = call("wait_until"),
         .arguments = {{.name = "nanoseconds", .good = 1000}},
         .call = [=](Values v) -> Outcome {
             const auto longest = std::chrono::nanoseconds(static_cast<std::int64_t>(v[0]));
             EXPECT_EQ(soft->machine().wait_until(always, longest), machine::Wait::happened);
             EXPECT_EQ(soft->machine().wait_until(never, longest), machine::Wait::timed_out);
             return returned;
         }},
    };
}

template <class Model>
std::vector<Row> soft_device(const char* name) {
    const auto soft = system_of<Model>();
    const auto domain = domain_of(soft);
    const auto call = [=](const char* what) { return std::string(name) + ", " + what; };
    return {
        // A driver may write any value to any register.
        {.name = call("registers"),
         .arguments = {{.name = "offset", .good = 0x20},
                       {.name = "value", .good = 1},
                       {.name = "width", .good = 2, .bits = 2}},
         .call = [=](Values v) -> Outcome {
             const std::uint64_t bytes = 1ULL << v[2];
             machine::Registers& registers = soft->registers();
             const std::uint64_t offset = v[0] % registers.size().value() / bytes * bytes;
             const auto width = static_cast<Width>(bytes);
             registers.write(offset, width, v[1]);
             (void)registers.read(offset, width);
             (void)soft->machine().wait_until(never, std::chrono::milliseconds(1));
             machine::Registers& config = soft->function().config();
             (void)config.read(v[0] % config.size().value() / bytes * bytes, width);
             EXPECT_TRUE(soft->machine().take_faults(ignore));
             return returned;
         }},
        {.name = call("domain"),
         .arguments = {{.name = "start", .good = 0x40'0000},
                       {.name = "size", .good = 0x4000},
                       {.name = "memory", .good = 0x10'0000}},
         .call =
             [=](Values v) {
                 const auto done =
                     domain->map(Iova(v[0]), ByteCount(v[1]), PhysicalAddress(v[2]), read_write);
                 const auto undone = domain->unmap(Iova(v[0]), ByteCount(v[1]));
                 EXPECT_TRUE(undone || !done);
                 EXPECT_EQ(domain->unmap_deferred(Iova(v[0]), ByteCount(v[1])).has_value(),
                           undone.has_value());
                 return outcome(done);
             }},
    };
}

std::vector<Row> machine_texts() {
    return {
        {.name = "parse_bdf",
         .arguments = {{.name = "segment", .good = 0},
                       {.name = "bus", .good = 1},
                       {.name = "device", .good = 2},
                       {.name = "function", .good = 3}},
         .call = [](Values v) -> Outcome {
             const auto digits = [](std::uint64_t value) { return hexadecimal(value).substr(2); };
             const std::string text =
                 digits(v[0]) + ":" + digits(v[1]) + ":" + digits(v[2]) + "." + digits(v[3]);
             const auto bdf = machine::vfio_host::parse_bdf(text);
             EXPECT_TRUE(!bdf || (v[0] < 0x10000 && v[1] < 256 && v[2] < 32 && v[3] < 8));
             (void)machine::vfio_host::parse_bdf(text.substr(digits(v[0]).size() + 1));
             return returned;
         }},
        {.name = "kernel_vulnerability",
         .arguments = {{.name = "major", .good = 6},
                       {.name = "minor", .good = 12},
                       {.name = "patch", .good = 1}},
         .call = [](Values v) -> Outcome {
             const std::string release =
                 std::to_string(v[0]) + "." + std::to_string(v[1]) + "." + std::to_string(v[2]);
             using machine::vfio_host::DeviceLeaves;
             for (const auto leaves : {DeviceLeaves::unknown, DeviceLeaves::no, DeviceLeaves::yes})
                 (void)machine::vfio_host::kernel_vulnerability(release, leaves);
             return returned;
         }},
    };
}

std::vector<Row> platforms() {
    using std::chrono::milliseconds;
    return {
        {.name = "Mapping",
         .arguments = {{.name = "size", .good = 0x1000}},
         .call = [](Values v) { return outcome(platform::Mapping::create(-1, ByteCount(v[0]))); }},
        {.name = "MemoryFile",
         .arguments = {{.name = "size", .good = 0x1000}},
         .call =
             [](Values v) {
                 return outcome(platform::MemoryFile::create("row", ByteCount(v[0])));
             }},
        {.name = "capture_stack",
         .arguments = {{.name = "room", .good = 4}, {.name = "skip", .good = 1, .bits = 32}},
         .call = [](Values v) -> Outcome {
             std::array<std::uintptr_t, 64> frames{};
             const auto room = std::min<std::uint64_t>(v[0], frames.size());
             const auto skip = static_cast<unsigned>(v[1]);
             const std::size_t taken = platform::capture_stack(std::span(frames).first(room), skip);
             EXPECT_LE(taken, room);
             EXPECT_TRUE(skip < 1000 || taken == 0);
             return returned;
         }},
        {.name = "symbolise",
         .arguments = {{.name = "address", .good = 0x1000}},
         .call = [](Values v) -> Outcome {
             unsigned frames = 0;
             const auto count = [&](const StackFrame&) { ++frames; };
             platform::symbolise(v[0], count);
             EXPECT_GE(frames, 1U);
             return returned;
         }},
        {.name = "StreamSocket",
         .arguments = {{.name = "patience", .good = 10}, {.name = "most", .good = 8}},
         .call =
             [](Values v) {
                 const auto patience = milliseconds(static_cast<std::int64_t>(v[0]));
                 auto socket = platform::StreamSocket::create(patience);
                 socket->close_child();
                 EXPECT_FALSE(socket->send("closed")); // at once, whatever the timeout
                 const auto answer = socket->receive_until('\n', v[1]);
                 EXPECT_FALSE(answer);
                 return Outcome();
             }},
        {.name = "ended_within",
         .arguments = {{.name = "milliseconds", .good = 60'000}},
         .call =
             [](Values v) {
                 const std::array<std::string, 1> arguments = {"true"};
                 auto child = platform::ChildProcess::start(arguments, {});
                 if (!child)
                     return outcome(child);
                 (void)child->ended_within(milliseconds(static_cast<std::int64_t>(v[0])));
                 return Outcome();
             }},
    };
}

TEST(MachineContracts, edu_takes_any_number) {
    expect_contracts([] { return soft_machine<machine::soft::Edu>("edu"); });
    expect_contracts([] { return soft_device<machine::soft::Edu>("edu"); });
}

TEST(MachineContracts, nvme_takes_any_number) {
    expect_contracts([] { return soft_machine<machine::soft::Nvme>("nvme"); });
    expect_contracts([] { return soft_device<machine::soft::Nvme>("nvme"); });
}

TEST(MachineContracts, texts_take_any_number) {
    expect_contracts(machine_texts);
}

TEST(PlatformContracts, every_function_takes_any_number) {
    expect_contracts(platforms);
}

} // namespace
} // namespace moat::tests
