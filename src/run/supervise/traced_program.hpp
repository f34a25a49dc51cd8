// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// TracedProgram: a process of the program, as the Session in the supervisor reaches it.
#pragma once

#include "platform/file_descriptor.hpp"
#include "run/client.hpp"
#include "run/options.hpp"
#include "run/session.hpp"
#include "run/supervise/call_stacks.hpp"
#include "run/supervise/open_files.hpp"
#include "run/supervise/stopped_thread.hpp"

#include <memory>
#include <set>
#include <string>
#include <sys/types.h>

namespace moat::run {

/// What the Client's functions do is thread-safe where the Client's are called by devices: memory
/// and printing. The others belong to the supervisor's thread.
class TracedProgram final : public Client {
  public:
    /// Both outlive it.
    TracedProgram(pid_t process, OpenFiles& files, const Options& options);

    [[nodiscard]] pid_t number() const { return process_; }

    [[nodiscard]] const Options& options() const { return options_; }

    [[nodiscard]] const MemoryMap& memory() const { return memory_; }

    /// The address of a page of the program that is the supervisor's; 0 without one.
    [[nodiscard]] std::uint64_t scratch() const { return scratch_; }

    void set_scratch(std::uint64_t address) { scratch_ = address; }

    /// Made by the first call.
    [[nodiscard]] Session& session();

    /// nullptr if there is none yet.
    [[nodiscard]] Session* session_if_any() { return session_.get(); }

    /// The process ends or becomes another program: what is mapped now lasts until the end.
    void finish();

    [[nodiscard]] bool is_finished() const { return finished_; }

    /// The call or access of this thread is being served; nullptr: none.
    void serve(const StoppedThread* thread, bool is_fault) {
        serving_ = thread;
        is_fault_ = is_fault;
    }

    /// Return: whether this is the first time that calls on `descriptor`, a low number, matter.
    [[nodiscard]] bool watch(int descriptor) { return watched_.insert(descriptor).second; }

    /// The first time only. Supervisor's thread.
    void print_line(const std::string& text) {
        if (printed_.insert(text).second)
            print("moat run: " + text + '\n');
    }

    [[nodiscard]] std::size_t read(std::uint64_t address, std::span<std::byte> into) override;
    /// The last 8 bytes are written after the others.
    [[nodiscard]] std::size_t write(std::uint64_t address,
                                    std::span<const std::byte> from) override;
    [[nodiscard]] int duplicate(int descriptor) override;
    [[nodiscard]] File file_of(int descriptor) override;
    [[nodiscard]] fault::StackView stack(Stacks& stacks) override;
    [[nodiscard]] std::uint64_t thread() override;
    [[nodiscard]] std::uint64_t process() override;
    void symbolise(std::uintptr_t address, FunctionRef<void(const StackFrame&)> sink) override;
    void print(std::string_view text) override;

  private:
    [[nodiscard]] bool is_region(std::uint64_t address);

    pid_t process_;
    platform::FileDescriptor handle_; ///< a pidfd
    MemoryMap memory_;
    OpenFiles& files_;
    const Options& options_;
    std::uint64_t scratch_ = 0;
    CallStacks stacks_;
    std::unique_ptr<Session> session_;
    const StoppedThread* serving_ = nullptr;
    bool is_fault_ = false;
    bool finished_ = false;
    std::set<int> watched_;
    std::set<std::string> printed_;
};

} // namespace moat::run
