// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of VMware's paravirtual SCSI controller: the disk at target 0, one request at a time.
// VMware publishes the interface only as its driver's header (vmw_pvscsi.h); the names are its own.
#include "audit/drivers/scsi.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

namespace moat::audit {
namespace pvscsi {

using namespace std::chrono_literals;

using scsi::CommandBlock;

namespace reg {

constexpr unsigned command = 0x0000;
constexpr unsigned command_data = 0x0004;
constexpr unsigned command_status = 0x0008;
constexpr unsigned interrupt_status = 0x100c;
constexpr unsigned interrupt_mask = 0x2010;
constexpr unsigned kick = 0x4018; ///< of reads and writes

} // namespace reg

enum class Command : std::uint8_t { reset_adapter = 1, set_up_rings = 3 };

/// What set_up_rings gets, by words.
struct Rings {
    std::uint32_t request_pages = 1;
    std::uint32_t completion_pages = 1;
    std::uint64_t state = 0; ///< page numbers
    std::array<std::uint64_t, 32> requests{};
    std::array<std::uint64_t, 32> completions{};
};

static_assert(sizeof(Rings) == 528);

/// The counters in the page of the rings' state, in words.
enum Counter : std::uint8_t {
    requests_produced = 0,
    completions_produced = 3,
    completions_used = 4
};

struct RequestEntry {
    std::uint64_t context = 0;
    std::uint64_t data = 0; ///< or the list of its parts
    std::uint64_t length = 0;
    std::uint64_t sense = 0;
    std::uint32_t sense_length = 0;
    std::uint32_t flags = 0;
    CommandBlock block{};
    std::uint8_t block_bytes = 0;
    std::array<std::uint8_t, 8> unit{};
    std::uint8_t tag = 0x20; ///< a simple task
    std::uint8_t bus = 0;
    std::uint8_t target = 0;
    std::uint8_t processor = 0;
    std::array<std::uint8_t, 59> unused{};
};

static_assert(sizeof(RequestEntry) == 128);
constexpr std::uint32_t by_list = 1U << 0;
constexpr std::uint32_t no_data = 1U << 2;
constexpr std::uint32_t to_host = 1U << 3;
constexpr std::uint32_t to_disk = 1U << 4;

struct CompletionEntry {
    std::uint64_t context;
    std::uint64_t length;
    std::uint32_t sense_length;
    std::uint16_t host_status;
    std::uint16_t scsi_status;
    std::array<std::uint32_t, 2> unused;
};

static_assert(sizeof(CompletionEntry) == 32);

/// A part of the data.
struct Element {
    std::uint64_t address;
    std::uint32_t length;
    std::uint32_t flags;
};

static_assert(sizeof(Element) == 16);

constexpr std::uint64_t page = 4096;
constexpr unsigned page_lg2 = 12;
constexpr std::size_t request_entries = page / sizeof(RequestEntry);
constexpr std::size_t completion_entries = page / sizeof(CompletionEntry);
constexpr ByteCount sense_bytes(96);
constexpr ByteCount state_bytes(140);
constexpr ByteCount longest(std::uint64_t{1} << 20);

enum Place : std::uint8_t { read_place, write_place, read_by_list_place, flush_place };

constexpr std::array<Operation, 4> operations_of_pvscsi = {
    {on_medium("read", Content::loads, ByteCount(scsi::block_bytes), longest),
     on_medium("write", Content::stores, ByteCount(scsi::block_bytes), longest),
     on_medium("read by a list", Content::loads, ByteCount(scsi::block_bytes), longest),
     {"flush", Direction::to_device, 0, ByteCount(1), ByteCount(0)}}};

class Pvscsi final : public DeviceDriver, private scsi::Transport {
  public:
    Pvscsi(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("pvscsi", operations_of_pvscsi, seat), registers_(registers) {}

    ~Pvscsi() override {
        if (has_registers())
            send(Command::reset_adapter);
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override;
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    [[nodiscard]] bool has_registers() const { return registers_.size() >= ByteCount(0x5000); }

    void send(Command command) {
        registers_.write32(reg::command, static_cast<std::uint32_t>(command));
    }

    [[nodiscard]] std::atomic_ref<std::uint32_t> counter(Counter which) const {
        return std::atomic_ref(reinterpret_cast<std::uint32_t*>(state_.bytes.data())[which]);
    }

    Result<void> start();
    Result<Answer> execute(const Request& request, const CommandBlock& block) override;
    Result<void> list_elements(const Request& request);

    machine::Registers& registers_;
    Buffer state_{};
    Buffer requests_{};
    Buffer completions_{};
    Buffer sense_{};
    Buffer capacity_{};
    std::uint32_t produced_ = 0;
    bool running_ = false;
};

Result<void> Pvscsi::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a controller with too few registers");
    using enum Direction;
    MOAT_TRY(
        obtain({{state_, {"ring state", bidirectional, state_bytes, page_lg2}},
                {requests_, {"request ring", to_device, ByteCount(page), page_lg2}},
                {completions_, {"completion ring", from_device, ByteCount(page), page_lg2}},
                {sense_, {"sense data", from_device, sense_bytes, 0}},
                {capacity_, {"capacity", from_device, scsi::capacity_bytes, 0, Use::at_start}}}));
    MOAT_TRY(start());
    MOAT_LET(const Medium medium, scsi::size_of_disk(*this, read_place, capacity_));
    set_medium(medium);
    return {};
}

/// Waits until the disk is ready, too: the first command after a reset fails.
Result<void> Pvscsi::start() {
    Rings rings{.state = state_.iova.value() >> page_lg2};
    rings.requests[0] = requests_.iova.value() >> page_lg2;
    rings.completions[0] = completions_.iova.value() >> page_lg2;
    std::array<std::uint32_t, sizeof rings / sizeof(std::uint32_t)> words{};
    std::memcpy(words.data(), &rings, sizeof rings);
    send(Command::reset_adapter);
    std::ranges::fill(state_.bytes, std::byte{0});
    function().set_bus_master(true);
    registers_.write32(reg::interrupt_mask, 0);
    send(Command::set_up_rings);
    for (const std::uint32_t word : words)
        registers_.write32(reg::command_data, word);
    const std::uint32_t status = registers_.read32(reg::command_status);
    MOAT_TRY(health());
    if (status != 0)
        return fail(ErrorCode::io, "the controller does not accept its rings", {"status", status});
    produced_ = 0;
    running_ = true;
    return scsi::become_ready(*this, flush_place, running_);
}

std::vector<Need> Pvscsi::lists_for(const Request& request) const {
    if (request.operation != read_by_list_place)
        return {};
    return {{.what = "scatter list",
             .direction = Direction::to_device,
             .size = ByteCount(pages_of(request) * sizeof(Element)),
             .alignment_lg2 = 4}};
}

/// An element describes at most a page, as where pages of memory lie apart.
Result<void> Pvscsi::list_elements(const Request& request) {
    const std::uint64_t elements = pages_of(request);
    if (request.lists.size() != 1 || request.lists[0].bytes.size() < elements * sizeof(Element))
        return fail(ErrorCode::out_of_range, "the operation needs a scatter list",
                    {"elements", elements});
    std::byte* to = request.lists[0].bytes.data();
    each_page_of(request, [&](std::uint64_t start, std::uint64_t bytes) {
        const Element element{
            .address = start, .length = static_cast<std::uint32_t>(bytes), .flags = 0};
        std::memcpy(to, &element, sizeof element);
        to += sizeof element;
    });
    return {};
}

Result<Answer> Pvscsi::do_run(const Request& request) {
    if (request.operation == read_by_list_place)
        MOAT_TRY(list_elements(request));
    if (!running_)
        MOAT_TRY(start());
    using enum scsi::Command;
    constexpr std::array commands = {read_10, write_10, read_10, synchronize_cache};
    return execute(
        request, scsi::block_of(commands.at(request.operation), request.position, request.length));
}

Result<Answer> Pvscsi::execute(const Request& request, const CommandBlock& block) {
    constexpr std::array flags = {to_host, to_disk, to_host | by_list, no_data};
    const bool is_listed = request.operation == read_by_list_place;
    const RequestEntry entry{.context = std::uint64_t{produced_} + 1,
                             .data = (is_listed ? request.lists[0].iova : request.data).value(),
                             .length = request.length.value(),
                             .sense = sense_.iova.value(),
                             .sense_length = static_cast<std::uint32_t>(sense_bytes.value()),
                             .flags = flags.at(request.operation),
                             .block = block,
                             .block_bytes = scsi::length_of(block)};
    const std::size_t at = produced_ % request_entries * sizeof entry;
    const std::size_t answered_at = produced_ % completion_entries * sizeof(CompletionEntry);
    std::memcpy(requests_.bytes.data() + at, &entry, sizeof entry);
    counter(requests_produced).store(++produced_, std::memory_order_release);
    registers_.write32(reg::kick, 0);
    auto completed = [&] {
        return counter(completions_produced).load(std::memory_order_acquire) == produced_;
    };
    MOAT_LET(const bool waited, wait_until(completed, 1s));
    CompletionEntry answer{};
    std::memcpy(&answer, completions_.bytes.data() + answered_at, sizeof answer);
    if (!waited || answer.context != entry.context) {
        running_ = false;
        return Answer{Verdict::no_answer, registers_.read32(reg::interrupt_status)};
    }
    counter(completions_used).store(produced_, std::memory_order_release);
    const bool is_good = answer.host_status == 0 && answer.scsi_status == 0;
    return Answer{is_good ? Verdict::success : Verdict::failure,
                  std::uint64_t{answer.host_status} << 8 | answer.scsi_status};
}

} // namespace pvscsi

Result<std::unique_ptr<Driver>> start_pvscsi(const Seat& seat) {
    return started<pvscsi::Pvscsi>(seat, 0);
}

} // namespace moat::audit
