// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of an NVM Express controller with one namespace in this process's memory: admin and I/O
// queues, PRP and SGL, and the commands that a driver needs. Misbehaviour: data_phase.hpp.
// Source: NVM Express Base Specification 1.4, chapters 3 (registers), 4 (structures), 5 and 6.
#pragma once

#include "machine/soft/data_phase.hpp"
#include "platform/memory_file.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <vector>

namespace moat::machine::soft {

struct NvmeOptions {
    ByteCount capacity{std::uint64_t{4} << 20}; ///< a multiple of a block
    unsigned block_lg2 = 9;
    /// Drivers reject a second controller with the same number.
    unsigned serial_number = 1;
    /// A file of `capacity` bytes that holds the medium, and may be closed afterwards; -1: memory.
    int medium = -1;
};

/// Queues, lists and commands come from memory with arbitrary contents: every number is checked,
/// and the work for one command is bounded.
class Nvme final : public MovingModel {
  public:
    static constexpr unsigned most_queues = 9;     ///< pairs, including the admin queues
    static constexpr unsigned most_entries = 1024; ///< of an I/O queue
    static constexpr unsigned most_event_requests = 4;
    static constexpr std::uint64_t page_bytes = 4096;
    /// Limits of one command.
    static constexpr std::uint64_t most_data = 32 * page_bytes;
    static constexpr unsigned most_descriptors = 1024;

    explicit Nvme(const NvmeOptions& options = {});

    /// The medium, for tests.
    [[nodiscard]] std::span<std::byte> medium() { return medium_.bytes(); }

    [[nodiscard]] FunctionInfo info() const override;

    [[nodiscard]] unsigned vectors() const override { return most_queues; }

    [[nodiscard]] std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) override;
    void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) override;
    [[nodiscard]] bool step(BusMaster& bus) override;
    void reset() override;
    [[nodiscard]] bool disabled() const override;
    [[nodiscard]] bool uses(IovaRange range, BusMaster& bus) const override;

    /// Status code type << 8 | status code.
    enum class Status : std::uint16_t {
        success = 0x000,
        invalid_opcode = 0x001,
        invalid_field = 0x002,
        data_transfer_error = 0x004,
        command_aborted = 0x007,
        invalid_namespace = 0x00b,
        command_sequence_error = 0x00c,
        invalid_segment_descriptor = 0x00d,
        invalid_descriptor_count = 0x00e,
        invalid_data_length = 0x00f,
        invalid_descriptor_type = 0x011,
        invalid_prp_offset = 0x013,
        lba_out_of_range = 0x080,
        completion_queue_invalid = 0x100,
        invalid_queue_identifier = 0x101,
        invalid_queue_size = 0x102,
        too_many_event_requests = 0x105,
        invalid_vector = 0x108,
        invalid_log_page = 0x109,
        invalid_queue_deletion = 0x10c,
        feature_not_saveable = 0x10d,
        compare_failure = 0x285,
    };

    /// In the status of a completion: the same command would fail again.
    static constexpr std::uint16_t do_not_retry = 1U << 14;

  private:
    /// A submission entry: 16 words of 32 bits.
    struct Command {
        std::array<std::uint32_t, 16> words{};

        [[nodiscard]] std::uint8_t opcode() const { return words[0] & 0xff; }

        [[nodiscard]] unsigned pointer_kind() const { return words[0] >> 14 & 3; }

        [[nodiscard]] std::uint16_t number() const {
            return static_cast<std::uint16_t>(words[0] >> 16);
        }

        [[nodiscard]] std::uint32_t name_space() const { return words[1]; }

        [[nodiscard]] std::uint64_t wide(unsigned word) const {
            return words[word] | std::uint64_t{words[word + 1]} << 32;
        }
    };

    static_assert(sizeof(Command) == 64);

    struct SubmissionQueue {
        Iova base = {};
        unsigned entries = 0; ///< 0: the queue does not exist
        unsigned head = 0;
        unsigned tail = 0;
        unsigned completions = 0; ///< the completion queue's number
    };

    struct CompletionQueue {
        Iova base = {};
        unsigned entries = 0;
        unsigned head = 0;
        unsigned tail = 0;
        bool phase = true;
        bool interrupts = false;
        unsigned vector = 0;

        /// How many completions it takes.
        [[nodiscard]] unsigned free() const { return (head + entries - tail - 1) % entries; }

        [[nodiscard]] bool full() const { return free() == 0; }
    };

    /// The result of a command; nothing if it does not complete now.
    struct Outcome {
        Status status = Status::success;
        std::uint32_t result = 0;
    };

    /// Valid until the next command.
    using Segments = std::expected<std::span<const Segment>, Status>;

    // Registers and queues: nvme.cpp.
    void write_register(std::uint64_t offset, std::uint32_t value);
    void configure(std::uint32_t value);
    void ring(std::uint64_t doorbell, std::uint32_t value);
    [[nodiscard]] std::optional<Mistake> move(std::uint64_t doorbell, std::uint32_t value);
    void start();
    [[nodiscard]] bool may_start() const;
    void stop();

    /// Completes a start or a shutdown. Return: whether it did.
    [[nodiscard]] bool settle();
    /// Return: whether an event was pending that could be sent.
    [[nodiscard]] bool send_event(BusMaster& bus);
    /// Return: whether there was a command.
    [[nodiscard]] bool run_next_command(BusMaster& bus);
    // These report a fatal status if the queue's memory is not accessible.
    void take_command(BusMaster& bus, unsigned queue);
    void complete(BusMaster& bus, unsigned queue, std::uint16_t number, Outcome outcome);

    // Queues: nvme_queues.cpp.
    [[nodiscard]] Outcome create_completion_queue(const Command& command);
    [[nodiscard]] Outcome create_submission_queue(const Command& command);
    [[nodiscard]] Outcome delete_completion_queue(const Command& command);
    [[nodiscard]] Outcome delete_submission_queue(const Command& command);
    [[nodiscard]] Outcome allocate_queues(const Command& command);
    [[nodiscard]] Outcome allocated_queues() const;

    // Admin commands: nvme_admin.cpp.
    [[nodiscard]] std::optional<Outcome> run_admin(BusMaster& bus, const Command& command);
    [[nodiscard]] std::optional<Outcome> request_event(const Command& command);
    [[nodiscard]] Outcome abort(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome identify(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome log_page(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome set_features(const Command& command);
    [[nodiscard]] Outcome get_features(const Command& command) const;

    // I/O commands, and where their data lies: nvme_commands.cpp.
    [[nodiscard]] Outcome run_io(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome compare_blocks(BusMaster& bus, const Command& command,
                                         std::span<const std::byte> blocks);
    [[nodiscard]] Outcome deallocate(BusMaster& bus, const Command& command);
    [[nodiscard]] std::expected<std::span<std::byte>, Status> blocks(std::uint64_t first,
                                                                     std::uint64_t count);
    [[nodiscard]] Outcome send(BusMaster& bus, const Command& command,
                               std::span<const std::byte> data);
    [[nodiscard]] Outcome receive(BusMaster& bus, const Command& command,
                                  std::span<std::byte> data);
    [[nodiscard]] Segments segments(BusMaster& bus, const Command& command, std::uint64_t bytes);
    [[nodiscard]] Segments by_pages(BusMaster& bus, const Command& command, std::uint64_t bytes);
    [[nodiscard]] Segments by_list(BusMaster& bus, const Command& command, std::uint64_t bytes);

    static constexpr unsigned most_io_queues = most_queues - 1;
    static constexpr unsigned feature_count = 16;
    static constexpr std::array<std::uint32_t, feature_count> default_features = [] {
        std::array<std::uint32_t, feature_count> features{};
        features[4] = 343; // the temperature to warn of, in K
        features[6] = 1;   // the write cache is on
        return features;
    }();

    const NvmeOptions options_;
    platform::Mapping medium_;
    // Of the current command; members so that their memory is reused.
    std::vector<Segment> segments_;
    std::vector<std::byte> buffer_;

    std::uint32_t configuration_ = 0;
    std::uint32_t status_ = 0;
    std::uint32_t masked_ = 0;
    std::uint32_t admin_sizes_ = 0;
    std::uint64_t admin_submissions_ = 0;
    std::uint64_t admin_completions_ = 0;
    std::array<SubmissionQueue, most_queues> submissions_{};
    std::array<CompletionQueue, most_queues> completions_{};
    unsigned turn_ = 0; ///< the submission queue to look at next
    bool starting_ = false;
    unsigned io_submissions_ = most_io_queues; ///< how many the driver may create
    unsigned io_completions_ = most_io_queues;
    std::array<std::uint32_t, feature_count> features_ = default_features;

    std::vector<std::uint16_t> event_requests_; ///< commands that wait for an event
    std::uint32_t event_ = 0;                   ///< to send; none if 0
    bool event_is_unread_ = false;              ///< no other is sent until its log page is read
};

} // namespace moat::machine::soft
