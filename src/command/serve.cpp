// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// `moat serve`: soft devices at Unix sockets, for any client of vfio-user. The protocol's server
// lives in src/serve/.
#include "moat/core/text.hpp"

#include "command/picture/picture.hpp"
#include "command/recording_input.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/numbers.hpp"
#include "command/terminal/output.hpp"
#include "platform/file_descriptor.hpp"
#include "run/device_kinds.hpp"
#include "run/findings.hpp"
#include "run/options.hpp"
#include "run/recorder.hpp"
#include "serve/conversation.hpp"
#include "serve/listener.hpp"
#include "serve/message_capture.hpp"
#include "serve/proxy.hpp"

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <optional>
#include <sys/signalfd.h>
#include <thread>

namespace moat::tools {
namespace {

struct ServeArguments {
    std::vector<std::string> devices;
    std::string proxied;
    std::vector<std::string> sockets;
    std::string inject = "none";
    std::uint64_t after = 0;
    std::optional<std::uint64_t> seed;
    bool unchecked = false;
    std::string json;
    std::string record;
    PictureFiles pictures;
    std::string messages;
};

/// The file that --record names or, for --html and --trace alone, one that is gone at the end.
class SessionRecording {
  public:
    explicit SessionRecording(const ServeArguments& arguments)
        : pictures_(arguments.pictures), name_(arguments.record) {
        if (!pictures_.wanted() || !name_.empty())
            return;
        name_ = (std::filesystem::temp_directory_path() / "moat-serve-XXXXXX").string();
        const platform::FileDescriptor file(::mkstemp(name_.data()));
        if (file.get() < 0)
            throw Stop{Exit::bound, "moat serve: cannot write " + name_};
        is_temporary_ = true;
    }

    ~SessionRecording() {
        std::error_code ignored;
        if (is_temporary_)
            std::filesystem::remove(name_, ignored);
    }

    SessionRecording(const SessionRecording&) = delete;
    SessionRecording& operator=(const SessionRecording&) = delete;

    /// Empty if nothing is recorded.
    [[nodiscard]] const std::string& name() const { return name_; }

    /// Call when it is complete. Return: false after reporting what cannot be written.
    [[nodiscard]] bool draw() const {
        return !pictures_.wanted() || draw_recording("moat serve", name_, pictures_);
    }

  private:
    const PictureFiles& pictures_;
    std::string name_;
    bool is_temporary_ = false;
};

constexpr auto no_stacks = [](std::uintptr_t, fault::FrameSink) {};

/// One line or report at a time.
void print_report(std::string_view text) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    std::cerr << text << std::flush;
}

/// Serves the clients of `listener` one after another by conversation(channel) until `stop` is
/// readable; reports as `name` why a connection was ended.
template <class Converse>
void serve_clients(serve::Listener& listener, int stop, const std::string& name,
                   const std::string& messages, Converse conversation) {
    serve::MessageCapture capture(messages);
    const auto report = [&](const Error& error) {
        print_report("moat serve: " + name + ": " + to_string(error) + '\n');
    };
    for (;;) {
        auto client = listener.accept(stop);
        if (!client)
            return report(client.error());
        if (!*client)
            return;
        machine::vfio_user::Channel channel(**std::move(client));
        capture.follow(channel);
        if (const auto ended = conversation(std::move(channel)); !ended)
            report(ended.error());
    }
}

/// A device, its socket, and the thread that serves its clients.
class Stand {
  public:
    Stand(const run::DeviceChoice& choice, const run::Injection& injection,
          serve::Listener listener, const ServeArguments& arguments, run::Recorder& recorder)
        : device_(run::make_device(choice, injection)),
          findings_(arguments.json, tally_, no_stacks, &print_report),
          listener_(std::move(listener)), messages_(arguments.messages),
          stage_{.face = *device_.face,
                 .reports = {.name = choice.kind + ' ' + listener_.path(),
                             .findings = findings_,
                             .recorder = recorder,
                             .tally = tally_,
                             .print = &print_report},
                 .unchecked = arguments.unchecked} {
        stage_.offered.twin_socket = messages_.empty(); // so that all messages are in one order
    }

    void start(int stop) {
        thread_ = std::thread([this, stop] { serve(stop); });
    }

    void join() { thread_.join(); }

    [[nodiscard]] std::uint64_t misdeeds() const {
        return device_.model->misdeeds() + device_.face->malfunctions();
    }

    /// Of its thread, after join().
    [[nodiscard]] const run::Tally& tally() const { return tally_; }

  private:
    void serve(int stop) {
        serve_clients(listener_, stop, stage_.reports.name, messages_,
                      [&](machine::vfio_user::Channel client) {
                          return serve::Conversation(stage_, std::move(client)).run(stop);
                      });
    }

    run::SoftDevice device_;
    run::Tally tally_;
    run::Findings findings_;
    serve::Listener listener_;
    std::string messages_; ///< the file of the capture; may be empty
    serve::Stage stage_;
    std::thread thread_;
};

/// A descriptor that is readable once the command is asked to end.
[[nodiscard]] platform::FileDescriptor end_signals() {
    ::signal(SIGPIPE, SIG_IGN); // a client's "eventfd" may be a closed pipe
    sigset_t ends;
    sigemptyset(&ends);
    for (const int each : {SIGINT, SIGTERM, SIGHUP})
        sigaddset(&ends, each);
    pthread_sigmask(SIG_BLOCK, &ends, nullptr);
    return platform::FileDescriptor(::signalfd(-1, &ends, SFD_CLOEXEC));
}

void print_served(const run::Tally& tally, std::uint64_t misdeeds, const std::string& inject) {
    std::string text = "moat serve: " + std::to_string(tally.opens) + " clients, " +
                       std::to_string(tally.maps) + " maps, " +
                       std::to_string(tally.register_accesses) + " register accesses, " +
                       std::to_string(tally.device_reads + tally.device_writes) +
                       " device accesses, " + std::to_string(tally.findings) + " findings";
    if (inject != "none")
        text += ", " + std::to_string(misdeeds) + " times " + inject;
    print_report(text + '\n');
}

[[nodiscard]] Exit serve_proxy(const ServeArguments& arguments, const std::string& recording) {
    if (!arguments.devices.empty() || arguments.sockets.size() != 1)
        throw Stop{Exit::usage, "moat serve: --proxy takes one --socket and no --device"};
    if (arguments.unchecked)
        throw Stop{Exit::usage, "moat serve: --unchecked is for a --device, not for a --proxy"};
    const std::string& path = arguments.sockets.front();
    const auto stop = end_signals();
    auto listener = or_stop(serve::Listener::create(path), Exit::bound, "moat serve: " + path);
    run::Tally tally{};
    run::Findings findings(arguments.json, tally, no_stacks, &print_report);
    run::Recorder recorder(recording, no_stacks);
    const serve::Reports reports = {.name = path,
                                    .findings = findings,
                                    .recorder = recorder,
                                    .tally = tally,
                                    .print = &print_report};
    std::cout << arguments.proxied << " at " << path << '\n' << std::flush;
    serve_clients(
        listener, stop.get(), path, arguments.messages,
        [&](machine::vfio_user::Channel client) -> Result<void> {
            MOAT_LET(auto server, machine::vfio_user::Channel::connect(arguments.proxied));
            return serve::Proxy(std::move(client), std::move(server), reports).run(stop.get());
        });
    print_served(tally, 0, "none");
    return tally.findings != 0 ? Exit::found : Exit::success;
}

[[nodiscard]] Exit serve_devices(const ServeArguments& arguments, const std::string& recording) {
    if (arguments.devices.empty())
        throw Stop{Exit::usage, "moat serve: name a --device (" + run::device_kinds() +
                                    ") or the server of a --proxy"};
    if (arguments.devices.size() != arguments.sockets.size())
        throw Stop{Exit::usage, "moat serve: " + std::to_string(arguments.devices.size()) +
                                    " devices and " + std::to_string(arguments.sockets.size()) +
                                    " sockets; name one socket for each device"};
    if (!arguments.messages.empty() && arguments.devices.size() != 1)
        throw Stop{Exit::usage, "moat serve: --messages takes one --device"};
    auto injection =
        or_stop(run::parse_injection(arguments.inject), Exit::usage, "moat serve: --inject");
    injection.after = arguments.after;
    injection.seed = arguments.seed;
    if (injection.seed && injection.name == "none")
        throw Stop{Exit::usage,
                   "moat serve: --seed chooses which operations go wrong: add --inject"};
    const auto stop = end_signals();
    run::Recorder recorder(recording, no_stacks);
    std::vector<std::unique_ptr<Stand>> stands;
    for (std::size_t index = 0; index != arguments.devices.size(); ++index) {
        const auto choice =
            or_stop(run::parse_device(arguments.devices[index], static_cast<unsigned>(index)),
                    Exit::usage, "moat serve: --device");
        auto listener = or_stop(serve::Listener::create(arguments.sockets[index]), Exit::bound,
                                "moat serve: " + arguments.sockets[index]);
        stands.push_back(
            std::make_unique<Stand>(choice, injection, std::move(listener), arguments, recorder));
    }
    for (std::size_t index = 0; index != stands.size(); ++index) {
        stands[index]->start(stop.get());
        std::cout << arguments.devices[index] << " at " << arguments.sockets[index] << '\n'
                  << std::flush;
    }
    run::Tally tally;
    std::uint64_t misdeeds = 0;
    for (const auto& each : stands) {
        each->join();
        tally += each->tally();
        misdeeds += each->misdeeds();
    }
    print_served(tally, misdeeds, arguments.inject);
    return tally.findings != 0 ? Exit::found : Exit::success;
}

} // namespace

void add_serve(CLI::App& app, Exit& exit) {
    static ServeArguments arguments;
    CLI::App* const command =
        app.add_subcommand("serve", "give soft devices to any client of vfio-user");
    command->add_option("--device", arguments.devices,
                        "a soft device: " + run::device_kinds() + "; nvme,size=1G");
    command->add_option("--proxy", arguments.proxied, "stand before the server at this socket")
        ->type_name("SOCKET");
    command->add_option("--socket", arguments.sockets, "the socket of each device, in their order")
        ->type_name("PATH")
        ->required();
    command->add_option("--inject", arguments.inject, "make the devices misbehave: FAULT[:BYTES]");
    add_number(*command, "--after", arguments.after, "so many commands with data are right first");
    accept_numbers(*command->add_option("--seed", arguments.seed,
                                        "do wrong in one command of four, the same ones for an "
                                        "equal seed"),
                   {});
    command->add_flag("--unchecked", arguments.unchecked,
                      "leave it to the client or a proxy to refuse accesses outside of its maps");
    command->add_option("--json", arguments.json, "append findings as JSON lines")
        ->type_name("FILE");
    command->add_option("--record", arguments.record, "write a recording for moat replay")
        ->type_name("FILE");
    arguments.pictures.add_options(*command, "write a page that draws the mappings",
                                   "write trace events for Perfetto");
    command
        ->add_option("--messages", arguments.messages,
                     "write the messages as lines of text (docs/recording_format.md)")
        ->type_name("FILE");
    command->footer("Faults: " + run::injections() + ".");
    describe(
        *command,
        {.paragraphs =
             {"Listens at Unix sockets and gives each client a soft PCI device over vfio-user. "
              "Checks each access of a device against the client's DMA maps, and reports those "
              "outside of them on standard error.",
              "A client that passes descriptors with its maps has its memory mapped; otherwise "
              "the device's accesses are messages. A socket serves one client after another. "
              "SIGINT and SIGTERM end the command and remove the sockets.",
              "With --proxy, passes messages between a client and another server, and withholds "
              "the client's descriptors: the server then asks for each access, which is checked."},
         .examples = {
             {"moat serve --device nvme --socket /tmp/nvme.sock",
              "serve a model of an NVMe controller"},
             {"moat serve --device nvme --socket /tmp/nvme.sock --inject overrun --after 9",
              "the same model, writing past buffers from its tenth command on"},
             {"moat serve --proxy /tmp/spdk.sock --socket /tmp/checked.sock",
              "check the device of another server"}}});
    command->callback([&exit] {
        require_output("moat serve", {arguments.json, arguments.record, arguments.messages,
                                      arguments.pictures.html(), arguments.pictures.trace()});
        const SessionRecording recording(arguments);
        exit = arguments.proxied.empty() ? serve_devices(arguments, recording.name())
                                         : serve_proxy(arguments, recording.name());
        if (!recording.draw())
            exit = Exit::bound;
    });
}

} // namespace moat::tools
