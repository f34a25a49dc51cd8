// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What vfio-user costs moat: a register read, and a DMA message of 4 KiB with its check, beside a
// bare ping-pong of the same bytes over a pair of sockets; and an audit of NVMe beside
// machine/qemu's.
#include "audit/audit.hpp"
#include "audit/subject.hpp"
#include "harness.hpp"
#include "machine/vfio_user/remote_device.hpp"
#include "run/device_kinds.hpp"
#include "run/findings.hpp"
#include "run/options.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using namespace moat::machine::vfio_user;
using machine::Width;

constexpr std::uint64_t block = 4096;

/// Register 0 takes a number of blocks, which it then writes to address 0.
class Pump final : public machine::soft::DeviceModel {
  public:
    [[nodiscard]] machine::FunctionInfo info() const override {
        machine::FunctionInfo info;
        info.vendor = 0x1234;
        info.bars[0] = {.kind = machine::BarKind::memory32, .size = ByteCount(block)};
        return info;
    }

    [[nodiscard]] unsigned vectors() const override { return 1; }

    [[nodiscard]] std::uint64_t read(unsigned /*bar*/, std::uint64_t /*offset*/,
                                     Width /*width*/) override {
        return left_;
    }

    void write(unsigned /*bar*/, std::uint64_t /*offset*/, Width /*width*/,
               std::uint64_t value) override {
        left_ = value;
    }

    [[nodiscard]] bool step(machine::soft::BusMaster& bus) override {
        if (left_ == 0)
            return false;
        --left_;
        MOAT_CHECK(bus.write(Iova(0), data_).value() == block, "the client takes the block");
        return true;
    }

    void reset() override { left_ = 0; }

  private:
    std::uint64_t left_ = 0;
    std::vector<std::byte> data_ = std::vector<std::byte>(block);
};

class CountingBus final : public machine::soft::BusMaster {
  public:
    [[nodiscard]] ByteCount read(Iova /*from*/, std::span<std::byte> into) override {
        return ByteCount(into.size());
    }

    [[nodiscard]] ByteCount write(Iova /*to*/, std::span<const std::byte> from) override {
        std::ranges::copy(from, memory_.begin());
        ++count;
        return ByteCount(from.size());
    }

    void interrupt(unsigned /*vector*/) override {}

    std::uint64_t count = 0;

  private:
    std::array<std::byte, block> memory_{};
};

void ignore(std::string_view /*text*/) {}

constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

/// A conversation of a device with one client on a thread, which ends with the connection.
class Serving {
  public:
    explicit Serving(machine::soft::Face& face)
        : stage_{.face = face,
                 .reports = {.name = "bench",
                             .findings = findings_,
                             .recorder = recorder_,
                             .tally = tally_,
                             .print = &ignore}} {}

    ~Serving() { server_.join(); }

    Serving(const Serving&) = delete;
    Serving& operator=(const Serving&) = delete;

    void start(Channel channel) {
        server_ = std::thread([this, channel = std::move(channel)]() mutable {
            (void)serve::Conversation(stage_, std::move(channel)).run(-1);
        });
    }

  private:
    run::Tally tally_{};
    run::Findings findings_{"", tally_, no_stacks, &ignore};
    run::Recorder recorder_{"", no_stacks};
    serve::Stage stage_;
    std::thread server_;
};

/// The pump in a conversation on a thread, and its client.
class Served {
  public:
    Served() {
        auto ends = Channel::pair();
        MOAT_CHECK(ends.has_value(), "a pair of sockets");
        serving_.start(std::move(ends->first));
        auto made = RemoteDevice::negotiate(Channel(std::move(ends->second)));
        MOAT_CHECK(made.has_value(), "a device");
        client = *std::move(made);
        client->connect_bus(bus);
        client->write(RemoteDevice::config_region, machine::pci::command, Width::bits16,
                      machine::pci::command_memory | machine::pci::command_master);
        MOAT_CHECK(client->map({.flags = map_readable | map_writable, .size = block}).has_value(),
                   "a map");
    }

    ~Served() { client.reset(); }

    Served(const Served&) = delete;
    Served& operator=(const Served&) = delete;

    CountingBus bus;
    std::unique_ptr<RemoteDevice> client; ///< its end is the conversation's

  private:
    Pump pump_;
    machine::soft::Face face_{machine::Bdf(0, 5, 0), pump_};
    Serving serving_{face_};
};

/// A thread that answers each `question` bytes with `answer` bytes, and nothing else.
class PingPong {
  public:
    PingPong(std::size_t question, std::size_t answer) : question_(question), answer_(answer) {
        std::array<int, 2> ends{};
        MOAT_CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0, "a pair of sockets");
        socket_ = platform::FileDescriptor(ends[0]);
        other_ = std::thread([this, socket = platform::FileDescriptor(ends[1])] {
            std::vector<std::byte> in(question_);
            const std::vector<std::byte> out(answer_);
            while (receive(socket.get(), in))
                (void)!::write(socket.get(), out.data(), out.size());
        });
    }

    ~PingPong() {
        socket_.reset();
        other_.join();
    }

    void play(std::uint64_t count) {
        const std::vector<std::byte> out(question_);
        std::vector<std::byte> in(answer_);
        for (; count != 0; --count) {
            (void)!::write(socket_.get(), out.data(), out.size());
            (void)receive(socket_.get(), in);
        }
    }

  private:
    static bool receive(int socket, std::span<std::byte> into) {
        return ::recv(socket, into.data(), into.size(), MSG_WAITALL) ==
               static_cast<ssize_t>(into.size());
    }

    std::size_t question_;
    std::size_t answer_;
    platform::FileDescriptor socket_;
    std::thread other_;
};

using Clock = std::chrono::steady_clock;

/// NVMe operations a second of an audit in random cases, which wait for no late write; 0 without
/// the device.
double audit_rate(const audit::Kind& kind, std::uint64_t cases) {
    const auto subject = audit::Subject::start(kind, {});
    if (!subject)
        return 0;
    audit::AuditOptions options = (*subject)->options();
    options.settle = {};
    options.first_case = std::uint64_t{1} << 20; // those at boundaries have many of megabytes
    options.end_case = options.first_case + cases;
    const auto begin = Clock::now();
    const auto report =
        audit::audit_function((*subject)->machine(), (*subject)->address(), options);
    MOAT_CHECK(report && report->findings.empty() && report->tally.cases == cases,
               "QEMU's and our own NVMe stay inside");
    return static_cast<double>(cases) / std::chrono::duration<double>(Clock::now() - begin).count();
}

/// The same of a soft NVMe controller that another thread serves.
double served_audit_rate(std::uint64_t cases) {
    const std::string path = "/tmp/moat-bench-vfio-user." + std::to_string(::getpid());
    auto listener = serve::Listener::create(path);
    MOAT_CHECK(listener.has_value(), "a socket in /tmp");
    const run::SoftDevice device = run::make_device({.kind = "nvme"}, {});
    Serving serving(*device.face);
    std::thread accepting([&] {
        auto client = listener->accept(-1);
        MOAT_CHECK(client && *client, "the audit connects");
        serving.start(Channel(**std::move(client)));
    });
    const double rate = audit_rate(audit::vfio_user_kind(path), cases);
    accepting.join();
    return rate;
}

void report_audits(Suite& suite) {
    constexpr int repetitions = 5;
    constexpr std::uint64_t cases = 2000;
    const auto qemu = std::ranges::find_if(audit::kinds(), [](const audit::Kind& each) {
        return each.machine == "qemu" && each.name == "nvme";
    });
    std::vector<double> ours;
    std::vector<double> theirs;
    for (int each = 0; each != repetitions; ++each) {
        ours.push_back(served_audit_rate(cases));
        theirs.push_back(audit_rate(*qemu, cases));
    }
    const auto median = [](std::vector<double>& values) {
        std::ranges::sort(values);
        return values[values.size() / 2];
    };
    Row row{.name = "NVMe operations over vfio-user, full checking",
            .value = median(ours),
            .unit = "1/s",
            .better = Better::higher};
    if (const double rate = median(theirs); rate != 0) {
        row.against = "the same on QEMU's, over qtest";
        row.against_value = rate;
    } else {
        std::fputs("bench_vfio_user: QEMU is not installed; its row is left out\n", stderr);
    }
    suite.report(row);
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("vfio_user", argc, argv);
    if (suite.only_counts())
        return suite.finish();
    constexpr std::size_t read_question = sizeof(Header) + sizeof(RegionAccess);
    constexpr std::size_t dma_answer = sizeof(Header) + sizeof(DmaAccess);
    Served served;
    PingPong small(read_question, read_question + 4);
    PingPong large(dma_answer + block, dma_answer);
    // A rate of 0.8 is a time of 1.25.
    suite.compare({.name = "register read over vfio-user",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       for (; count != 0; --count)
                                           keep(served.client->read(0, 0, Width::bits32));
                                   }},
                   .against = "a ping-pong of the same bytes",
                   .other = {.run = [&](std::uint64_t count) { small.play(count); }},
                   .goal = 1.25});
    suite.compare({.name = "DMA message of 4 KiB, checked",
                   .subject = {.run =
                                   [&](std::uint64_t count) {
                                       const std::uint64_t end = served.bus.count + count;
                                       served.client->write(0, 0, Width::bits64, count);
                                       while (served.bus.count != end)
                                           served.client->serve(std::chrono::milliseconds(100));
                                   }},
                   .against = "a ping-pong of the same bytes",
                   .other = {.run = [&](std::uint64_t count) { large.play(count); }},
                   .goal = 1.25});
    report_audits(suite);
    return suite.finish();
}
