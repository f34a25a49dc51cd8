// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/process.hpp"

#include "run/preload/faults.hpp"
#include "run/preload/own_client.hpp"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <pthread.h>
#include <string>
#include <unistd.h>

namespace moat::run {

thread_local constinit unsigned Inside::depth = 0;

namespace {

constinit std::atomic<Session*> current = nullptr;
constinit std::mutex making;
constinit std::mutex forgetting;
constinit std::atomic<pid_t> owner = 0; ///< of the memory
constinit std::atomic<unsigned> forks = 0;
// Not destroyed: threads of the program may outlive main.
constinit Descriptors the_descriptors;
constinit Windows the_windows;

[[nodiscard]] OwnClient& own_client() {
    static auto* const made = new OwnClient;
    return *made;
}

[[nodiscard]] const Options* read_options() {
    const char* const text = std::getenv("MOAT_RUN");
    if (text == nullptr)
        return nullptr;
    auto options = parse_options(text);
    if (!options) {
        print_line(options.error());
        std::_Exit(2);
    }
    return new Options(*std::move(options));
}

void before_fork() {
    making.lock();
    forgetting.lock();
    the_windows.lock();
}

void unlock_after_fork() {
    the_windows.unlock();
    forgetting.unlock();
    making.unlock();
}

/// The devices stay with the parent.
void in_child() {
    current = nullptr;
    owner = getpid();
    ++forks;
    the_descriptors.inherit();
    unlock_after_fork();
}

/// Under `forgetting`.
[[nodiscard]] bool is_unused(File file) {
    return !the_descriptors.refers(file) && !the_windows.refers(file);
}

[[nodiscard, gnu::noinline]] Session& make_session() {
    const std::lock_guard guard(making);
    catch_faults(); // its copies may fault
    if (current == nullptr)
        current = new Session(*options(), own_client());
    return *current;
}

[[gnu::constructor]] void start() {
    const Inside inside;
    if (options() == nullptr)
        return;
    owner = getpid();
    (void)own_client();
    (void)pthread_atfork(before_fork, unlock_after_fork, in_child);
}

[[gnu::destructor]] void finish() {
    const Inside inside;
    if (Session* const session = session_if_any())
        session->finish();
}

} // namespace

const Options* options() {
    static const Options* const read = read_options();
    return read;
}

Session& session() {
    if (Session* const made = current.load(std::memory_order_acquire)) [[likely]]
        return *made;
    return make_session();
}

Session* session_if_any() {
    return current.load(std::memory_order_acquire);
}

Descriptors& descriptors() {
    return the_descriptors;
}

Windows& windows() {
    return the_windows;
}

Client& client() {
    return own_client();
}

void forget_descriptor(int descriptor) {
    std::unique_lock guard(forgetting);
    const Descriptors::Entry entry = the_descriptors.remove(descriptor);
    const bool unused = entry.use == Descriptors::Use::vfio && is_unused(entry.file);
    guard.unlock();
    if (unused)
        close_file(entry.file);
}

void forget_mappings(std::uint64_t start, std::uint64_t end) {
    while (the_windows.overlaps(start, end)) {
        std::unique_lock guard(forgetting);
        const auto file = the_windows.remove_one(start, end);
        const bool unused = file && is_unused(*file);
        guard.unlock();
        if (unused)
            close_file(*file);
    }
}

void close_file(File file) {
    const Inside inside;
    if (Session* const session = session_if_any())
        session->close(file);
}

pid_t process_number() {
    return owner.load(std::memory_order_relaxed);
}

unsigned generation() {
    return forks.load(std::memory_order_relaxed);
}

bool is_vfork_child() {
    return owner != getpid();
}

void print_line(std::string_view text) {
    own_client().print("moat run: " + std::string(text) + '\n');
}

} // namespace moat::run
