// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A model of an NVM Express controller with one namespace in this process's memory: admin and I/O
// queues, PRP and SGL, and the commands that a driver needs. Misbehaviour: data_phase.hpp.
// Source: NVM Express Base Specification 1.4, chapters 3 (registers), 4 (structures), 5 and 6.
#pragma once

#include "machine/soft/data_phase.hpp"

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
};

/// Queues, lists and commands come from memory with arbitrary contents: every number is checked,
/// and the work for one command is bounded.
class Nvme final : public MovingModel {
  public:
    static constexpr unsigned most_queues = 9; ///< pairs, including the admin queues
    static constexpr unsigned most_entries = 256;
    static constexpr std::uint64_t page_bytes = 4096;
    /// Limits of one command.
    static constexpr std::uint64_t most_data = 32 * page_bytes;
    static constexpr unsigned most_descriptors = 1024;

    explicit Nvme(const NvmeOptions& options = {});

    /// The medium, for tests.
    [[nodiscard]] std::span<std::byte> medium() { return medium_; }

    [[nodiscard]] FunctionInfo info() const override;

    [[nodiscard]] unsigned vectors() const override { return most_queues; }

    [[nodiscard]] std::uint64_t read(unsigned bar, std::uint64_t offset, Width width) override;
    void write(unsigned bar, std::uint64_t offset, Width width, std::uint64_t value) override;
    [[nodiscard]] bool step(BusMaster& bus) override;
    void reset() override;

    /// Status code type << 8 | status code.
    enum class Status : std::uint16_t {
        success = 0x000,
        invalid_opcode = 0x001,
        invalid_field = 0x002,
        data_transfer_error = 0x004,
        invalid_namespace = 0x00b,
        invalid_segment_descriptor = 0x00d,
        invalid_descriptor_count = 0x00e,
        invalid_data_length = 0x00f,
        invalid_descriptor_type = 0x011,
        invalid_prp_offset = 0x013,
        lba_out_of_range = 0x080,
        completion_queue_invalid = 0x100,
        invalid_queue_identifier = 0x101,
        invalid_queue_size = 0x102,
        invalid_vector = 0x108,
        invalid_log_page = 0x109,
        invalid_queue_deletion = 0x10c,
    };

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

        [[nodiscard]] bool full() const { return (tail + 1) % entries == head; }
    };

    /// The result of a command; nothing if it does not complete now.
    struct Outcome {
        Status status = Status::success;
        std::uint32_t result = 0;
    };

    /// Valid until the next command.
    using Segments = std::expected<std::span<const Segment>, Status>;

    // Registers and queues: nvme.cpp.
    void configure(std::uint32_t value);
    void ring(std::uint64_t doorbell, std::uint32_t value);
    [[nodiscard]] bool may_start() const;
    void stop();

    // Return: false if the queue's memory is not accessible.
    [[nodiscard]] bool take_command(BusMaster& bus, unsigned queue);
    [[nodiscard]] bool complete(BusMaster& bus, const SubmissionQueue& from, unsigned queue,
                                std::uint16_t number, Outcome outcome);
    [[nodiscard]] Outcome create_completion_queue(const Command& command);
    [[nodiscard]] Outcome create_submission_queue(const Command& command);
    [[nodiscard]] Outcome delete_completion_queue(const Command& command);
    [[nodiscard]] Outcome delete_submission_queue(const Command& command);

    // Commands: nvme_commands.cpp.
    [[nodiscard]] std::optional<Outcome> run_admin(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome run_io(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome identify(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome log_page(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome set_features(const Command& command);
    [[nodiscard]] Outcome get_features(const Command& command) const;
    [[nodiscard]] Outcome transfer_blocks(BusMaster& bus, const Command& command);
    [[nodiscard]] Outcome send(BusMaster& bus, const Command& command,
                               std::span<const std::byte> data);

    // Where the data lies.
    [[nodiscard]] Segments segments(BusMaster& bus, const Command& command, std::uint64_t bytes);
    [[nodiscard]] Segments by_pages(BusMaster& bus, const Command& command, std::uint64_t bytes);
    [[nodiscard]] Segments by_list(BusMaster& bus, const Command& command, std::uint64_t bytes);

    const unsigned block_lg2_;
    std::vector<std::byte> medium_;
    std::vector<Segment>
        segments_;               ///< of the current command; members so that their memory is reused
    std::vector<std::byte> log_; ///< likewise

    std::uint32_t configuration_ = 0;
    std::uint32_t status_ = 0;
    std::uint32_t masked_ = 0;
    std::uint32_t admin_sizes_ = 0;
    std::uint64_t admin_submissions_ = 0;
    std::uint64_t admin_completions_ = 0;
    std::array<SubmissionQueue, most_queues> submissions_{};
    std::array<CompletionQueue, most_queues> completions_{};
    unsigned turn_ = 0; ///< the submission queue to look at next
    std::array<std::uint32_t, 16> features_{};
    unsigned waiting_for_events_ = 0;
};

} // namespace moat::machine::soft
