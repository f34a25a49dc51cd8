// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of NVM Express controllers: an admin queue and one I/O queue, a command at a time.
// Source: NVM Express Base Specification 1.4: 3.1 (registers), 4 (queues), 4.3 (PRP), 4.4 (SGL).
#include "moat/core/bits.hpp"

#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace moat::audit {
namespace nvme {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned capabilities = 0x00;
constexpr unsigned configuration = 0x14;
constexpr unsigned status = 0x1c;
constexpr unsigned admin_sizes = 0x24;
constexpr unsigned admin_submission = 0x28;
constexpr unsigned admin_completion = 0x30;
constexpr unsigned doorbells = 0x1000;

} // namespace reg

constexpr std::uint32_t enable = 1U << 0;
/// Entries of 64 and 16 bytes, pages of 4K.
constexpr std::uint32_t entry_sizes = 6U << 16 | 4U << 20;
constexpr std::uint32_t status_ready = 1U << 0;
constexpr std::uint32_t status_fatal = 1U << 1;

constexpr unsigned page_lg2 = 12;
constexpr std::uint64_t page = std::uint64_t{1} << page_lg2;
constexpr unsigned depth = 16; ///< entries of each queue
/// Data of this size needs a list of two pages.
constexpr unsigned most_data_lg2 = 21;

enum Opcode : std::uint8_t {
    delete_submission = 0x00,
    create_submission = 0x01,
    get_log_page = 0x02,
    delete_completion = 0x04,
    create_completion = 0x05,
    identify = 0x06,
    flush = 0x00,
    write = 0x01,
    read = 0x02,
};

/// In memory layout.
struct Command {
    std::uint8_t opcode = 0;
    std::uint8_t flags = 0; ///< bits 7..6: PRP or SGL
    std::uint16_t number = 0;
    std::uint32_t name_space = 0;
    std::uint64_t reserved = 0;
    std::uint64_t metadata = 0;
    std::array<std::uint64_t, 2> data{};
    std::array<std::uint32_t, 6> words{}; ///< 10 to 15
};

static_assert(sizeof(Command) == 64);

struct Completion {
    std::uint32_t result = 0;
    std::uint32_t reserved = 0;
    std::uint32_t queue = 0;
    std::uint32_t status = 0; ///< bits 15..0 the command's number, 16 the phase, 27..17 its status
};

static_assert(sizeof(Completion) == 16);

struct Queue {
    Buffer submissions;
    Buffer completions;
    unsigned number = 0;
    unsigned tail = 0;
    unsigned head = 0;
    bool phase = true; ///< of a new entry

    void restart() {
        tail = head = 0;
        phase = true;
        std::memset(completions.bytes.data(), 0, completions.bytes.size());
    }

    void append(const Command& command) {
        std::memcpy(submissions.bytes.data() + sizeof command * tail, &command, sizeof command);
        tail = (tail + 1) % depth;
    }

    /// The device's new completion. Acquires the word that makes it valid before reading the rest.
    std::optional<Completion> look() {
        std::byte* const entry = completions.bytes.data() + sizeof(Completion) * head;
        auto& last = reinterpret_cast<std::uint32_t*>(entry)[3];
        const std::uint32_t status =
            std::atomic_ref<std::uint32_t>(last).load(std::memory_order_acquire);
        if (((status & bit(16)) != 0) != phase)
            return std::nullopt;
        Completion completion;
        std::memcpy(&completion, entry, sizeof completion);
        completion.status = status;
        return completion;
    }

    void advance() {
        head = (head + 1) % depth;
        phase = head == 0 ? !phase : phase;
    }
};

class Nvme final : public DeviceDriver {
  public:
    /// Indices in `operations`; SGL operations exist if the controller supports them.
    enum Place : std::uint8_t {
        identify_place,
        health_place,
        read_place,
        write_place,
        flush_place,
        read_sgl_place,
        write_sgl_place
    };

    Nvme(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("nvme", {}, seat), registers_(registers),
          capabilities_(registers.read64(reg::capabilities)) {}

    ~Nvme() override { (void)stop(); }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override;
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;
    [[nodiscard]] Result<bool> delete_queues() override;

    Result<void> prepare();

  private:
    Result<void> start();
    Result<void> stop();
    Result<void> create_queue(Opcode opcode, const Buffer& memory, std::uint32_t last_word);
    Result<void> require_success(const Command& command, const char* message);
    Result<void> learn();
    [[nodiscard]] unsigned longest_lg2(std::span<const std::byte> about) const;
    [[nodiscard]] Result<Command> command_for(const Request& request) const;
    [[nodiscard]] Result<Answer> issue(Queue& queue, Command command);
    void ring(const Queue& queue, bool completion);
    Result<void> become_ready(bool wanted, const char* message);

    machine::Registers& registers_;
    const std::uint64_t capabilities_;
    std::vector<Operation> operations_;
    Queue admin_;
    Queue io_;
    Buffer scratch_{};
    std::uint16_t next_number_ = 0;
    std::uint32_t block_bytes_ = 512;
    bool running_ = false;
};

Result<void> Nvme::prepare() {
    if ((capabilities_ & low_bits(16)) + 1 < depth || (capabilities_ >> 48 & 0xf) != 0)
        return fail(ErrorCode::io, "the controller does not support short queues or pages of 4K",
                    {"capabilities", capabilities_});
    const std::uint64_t stride = std::uint64_t{4} << (capabilities_ >> 32 & 0xf);
    if (reg::doorbells + 4 * stride > registers_.size().value())
        return fail(ErrorCode::io, "the controller's doorbells lie outside its registers",
                    {"stride", stride});
    io_.number = 1;
    using enum Direction;
    const Need submissions{"submission queue", to_device, ByteCount(depth * sizeof(Command)),
                           page_lg2};
    const Need completions{"completion queue", from_device, ByteCount(depth * sizeof(Completion)),
                           page_lg2};
    MOAT_TRY(
        obtain({{admin_.submissions, submissions},
                {admin_.completions, completions},
                {io_.submissions, submissions},
                {io_.completions, completions},
                {scratch_, {"identify", from_device, ByteCount(page), page_lg2, Use::at_start}}}));
    // Before the controller is enabled (base specification 1.4, 5.3.1): QEMU's reads this once.
    MOAT_TRY(enable_interrupts(2));
    MOAT_TRY(start());
    return learn();
}

Result<void> Nvme::become_ready(bool wanted, const char* message) {
    auto ready = [&] { return ((registers_.read32(reg::status) & status_ready) != 0) == wanted; };
    MOAT_LET(const bool done, wait_until(ready, (capabilities_ >> 24 & 0xff) * 500ms + 500ms));
    return done ? Result<void>{}
                : fail(ErrorCode::io, message, {"status", registers_.read32(reg::status)});
}

Result<void> Nvme::stop() {
    running_ = false;
    registers_.write32(reg::configuration, 0);
    return become_ready(false, "the controller does not stop");
}

Result<void> Nvme::start() {
    MOAT_TRY(stop());
    admin_.restart();
    io_.restart();
    function().set_bus_master(true);
    registers_.write32(reg::admin_sizes, (depth - 1) << 16 | (depth - 1));
    registers_.write64(reg::admin_submission, admin_.submissions.iova.value());
    registers_.write64(reg::admin_completion, admin_.completions.iova.value());
    registers_.write32(reg::configuration, entry_sizes | enable);
    MOAT_TRY(become_ready(true, "the controller does not become ready"));
    const std::uint32_t vector = vectors() > 1 ? 1 : 0;
    constexpr std::uint32_t contiguous = 1;
    const std::uint32_t interrupts = vectors() != 0 ? 2 : 0;
    MOAT_TRY(
        create_queue(create_completion, io_.completions, vector << 16 | interrupts | contiguous));
    constexpr std::uint32_t completion_queue = 1U << 16;
    MOAT_TRY(create_queue(create_submission, io_.submissions, completion_queue | contiguous));
    running_ = true;
    return {};
}

Result<void> Nvme::create_queue(Opcode opcode, const Buffer& memory, std::uint32_t last_word) {
    Command command{.opcode = opcode};
    command.data[0] = memory.iova.value();
    command.words[0] = (depth - 1) << 16 | io_.number;
    command.words[1] = last_word;
    return require_success(command, "the controller cannot create an I/O queue");
}

/// Issues an admin command of the driver's own.
Result<void> Nvme::require_success(const Command& command, const char* message) {
    MOAT_LET(const Answer answer, issue(admin_, command));
    if (answer.verdict != Verdict::success)
        return fail(ErrorCode::io, message, {"code", answer.code});
    return {};
}

/// From identify (5.15.2.1): the largest transfer is a power of two of the smallest page
/// (CAP.MPSMIN); 0 is no limit.
unsigned Nvme::longest_lg2(std::span<const std::byte> about) const {
    constexpr std::size_t largest_transfer = 77;
    const auto limit_lg2 = static_cast<unsigned>(about[largest_transfer]);
    const unsigned smallest_page_lg2 = page_lg2 + (capabilities_ >> 48 & 0xf);
    return limit_lg2 == 0 ? most_data_lg2 : std::min(most_data_lg2, limit_lg2 + smallest_page_lg2);
}

/// Reads the block size, the largest transfer and SGL support.
Result<void> Nvme::learn() {
    constexpr std::uint32_t controller = 1;
    std::array<std::byte, page> about{};
    for (const std::uint32_t what : {controller, std::uint32_t{0}}) {
        Command command{.opcode = identify, .name_space = what == controller ? 0U : 1U};
        command.data[0] = scratch_.iova.value();
        command.words[0] = what;
        MOAT_TRY(require_success(command, "the controller does not identify itself"));
        if (what == controller)
            std::memcpy(about.data(), scratch_.bytes.data(), page);
    }
    constexpr std::size_t sgl_support = 536;
    constexpr std::size_t formatted_size = 26;
    constexpr std::size_t first_format = 128;
    const bool has_sgl = (static_cast<unsigned>(about[sgl_support]) & 3U) != 0;
    const auto format = static_cast<unsigned>(scratch_.bytes[formatted_size]) & 0xfU;
    const auto block_lg2 =
        static_cast<unsigned>(scratch_.bytes[first_format + std::size_t{4} * format + 2]);
    if (block_lg2 < 9 || block_lg2 > 16)
        return fail(ErrorCode::io, "the block size of the namespace is invalid",
                    {"block_lg2", block_lg2});
    block_bytes_ = 1U << block_lg2;
    const ByteCount block(block_bytes_);
    const ByteCount longest(std::uint64_t{1} << std::max(longest_lg2(about), block_lg2));
    std::uint64_t blocks = 0;
    std::memcpy(&blocks, scratch_.bytes.data(), sizeof blocks); // of the namespace
    set_medium(medium_of(blocks, block));
    using enum Direction;
    operations_ = {{"identify", from_device, 2, ByteCount(page), ByteCount(page)},
                   {.name = "health log",
                    .direction = from_device,
                    .alignment_lg2 = 2,
                    .granule = ByteCount(4),
                    .longest = ByteCount(page),
                    .fills = ByteCount(512)}, // the log's own length (5.14.1.2)
                   on_medium("read", Content::loads, block, longest, 2),
                   on_medium("write", Content::stores, block, longest, 2),
                   {"flush", to_device, 0, ByteCount(1), ByteCount(0)}};
    if (has_sgl) {
        operations_.push_back(on_medium("read by SGL", Content::loads, block, longest));
        operations_.push_back(on_medium("write by SGL", Content::stores, block, longest));
    }
    set_operations(operations_);
    return {};
}

std::vector<Need> Nvme::lists_for(const Request& request) const {
    const std::uint64_t pages = pages_of(request);
    if (pages <= 2 || request.operation >= read_sgl_place)
        return {};
    // An entry for each page except the first, and a link for each page of the list.
    const std::uint64_t entries = pages - 1 + (pages - 1) / 511 + 1;
    return {{.what = "PRP list",
             .direction = Direction::to_device,
             .size = ByteCount(8 * entries),
             .alignment_lg2 = 3}};
}

/// 4.3: writes an entry for each page from the second one on; the last entry of a full list page
/// links to the next list page.
Result<void> write_list(const Buffer& list, std::uint64_t second, std::uint64_t pages) {
    std::uint64_t at = 0;
    for (std::uint64_t i = 0; i != pages; at += 8) {
        const std::uint64_t slot = list.iova.value() + at;
        const bool leads_on = (slot & (page - 1)) == page - 8 && i + 1 != pages;
        const std::uint64_t value = leads_on ? slot + 8 : second + i * page;
        if (at + 8 > list.bytes.size())
            return fail(ErrorCode::out_of_range, "the PRP list does not fit its memory",
                        {"bytes", list.bytes.size()});
        std::memcpy(list.bytes.data() + at, &value, sizeof value);
        i += leads_on ? 0 : 1;
    }
    return {};
}

Result<Command> Nvme::command_for(const Request& request) const {
    constexpr std::array opcodes = {identify, get_log_page, read, write, flush, read, write};
    Command command{.opcode = opcodes.at(request.operation)};
    const std::uint64_t pages = pages_of(request);
    const std::uint64_t second = align_down(request.data.value(), page_lg2) + page;
    command.data[0] = request.data.value();
    if (request.operation >= read_sgl_place) {
        constexpr std::uint8_t by_sgl = 1U << 6;
        command.flags = by_sgl;
        command.data[1] = request.length.value(); // a data block descriptor: kind 0 in the top byte
    } else if (pages == 2) {
        command.data[1] = second;
    } else if (pages > 2) {
        if (request.lists.empty())
            return fail(ErrorCode::out_of_range, "the operation needs a PRP list");
        MOAT_TRY(write_list(request.lists[0], second, pages - 1));
        command.data[1] = request.lists[0].iova.value();
    }
    if (request.operation == identify_place) {
        command.words[0] = 1; // the controller
    } else if (request.operation == health_place) {
        const auto dwords = static_cast<std::uint32_t>(request.length.value() / 4 - 1);
        command.name_space = ~0U;
        command.words[0] = dwords << 16 | 2;
        command.words[1] = dwords >> 16;
    } else {
        command.name_space = 1;
        command.words[0] = static_cast<std::uint32_t>(request.position);
        command.words[1] = static_cast<std::uint32_t>(request.position >> 32);
        if (request.length != ByteCount(0))
            command.words[2] =
                static_cast<std::uint32_t>(request.length.value() / block_bytes_ - 1);
    }
    return command;
}

Result<Answer> Nvme::do_run(const Request& request) {
    MOAT_LET(const Command command, command_for(request));
    // Restarts a controller that did not answer.
    if (!running_)
        MOAT_TRY(start());
    return issue(request.operation <= health_place ? admin_ : io_, command);
}

/// 5.5, 5.6: the submission queue first.
Result<bool> Nvme::delete_queues() {
    for (const Opcode opcode : {delete_submission, delete_completion}) {
        if (!running_)
            return false;
        Command command{.opcode = opcode};
        command.words[0] = io_.number;
        MOAT_LET(const Answer answer, issue(admin_, command));
        running_ = running_ && answer.verdict == Verdict::success;
    }
    return std::exchange(running_, false);
}

void Nvme::ring(const Queue& queue, bool completion) {
    const unsigned stride = 4U << (capabilities_ >> 32 & 0xf);
    registers_.write32(reg::doorbells + (2 * queue.number + (completion ? 1 : 0)) * stride,
                       completion ? queue.head : queue.tail);
}

Result<Answer> Nvme::issue(Queue& queue, Command command) {
    command.number = next_number_++;
    queue.append(command);
    ring(queue, false);
    auto completed = [&] { return queue.look().has_value(); };
    auto is_broken = [&] { return (registers_.read32(reg::status) & status_fatal) != 0; };
    MOAT_LET(const bool waited,
             wait_for_completion(vectors() > 1 ? queue.number : 0, completed, is_broken));
    if (!waited) {
        running_ = false;
        return Answer{Verdict::no_answer, registers_.read32(reg::status)};
    }
    const Completion completion = *queue.look();
    queue.advance();
    ring(queue, true);
    if (static_cast<std::uint16_t>(completion.status) != command.number)
        return fail(ErrorCode::io, "the controller completed an unknown command",
                    {"command", command.number}, {"status", completion.status});
    const std::uint32_t code = completion.status >> 17 & 0x7ff;
    return Answer{code == 0 ? Verdict::success : Verdict::failure, code};
}

} // namespace nvme

Result<std::unique_ptr<Driver>> start_nvme(const Seat& seat) {
    return started<nvme::Nvme>(seat, 0);
}

} // namespace moat::audit
