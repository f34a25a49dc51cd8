// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of VMware's vmxnet3 network device, on a network that returns each frame: each
// operation sends one and receives it, from or into a store of the driver's own.
// VMware publishes the interface only as its driver's header (vmxnet3_defs.h); the names are
// moat's.
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstring>

namespace moat::audit {
namespace vmxnet3 {

using namespace std::chrono_literals;

/// Of BAR 0; one of each for every vector or queue.
namespace doorbell {

constexpr unsigned interrupt_mask = 0x000;
constexpr unsigned transmit = 0x600;
constexpr unsigned receive_heads = 0x800;
constexpr unsigned receive_bodies = 0xa00;
constexpr unsigned stride = 8;

} // namespace doorbell

/// Of BAR 1.
namespace reg {

constexpr unsigned revision = 0x00; ///< reads have a bit for each that the device has
constexpr unsigned transport_revision = 0x08;
constexpr unsigned shared_low = 0x10;
constexpr unsigned shared_high = 0x18; ///< completes the address
constexpr unsigned command = 0x20;     ///< reads return the command's result

} // namespace reg

enum class Command : std::uint32_t {
    activate = 0xcafe0000,
    quiesce = 0xcafe0001,
    reset = 0xcafe0002
};

constexpr unsigned ring_entries = 32; ///< the shortest ring
constexpr unsigned ring_lg2 = 9;      ///< of the alignment
/// A frame's first buffer; the device accepts no shorter ones.
constexpr ByteCount head_bytes(128);
constexpr std::uint32_t longest_payload = 9000;
constexpr ByteCount longest = ByteCount(14 + longest_payload) - head_bytes;
constexpr ByteCount store_bytes(16384);

/// What driver and device share.
struct SharedArea {
    std::uint32_t magic = 0xbabefee1;
    std::uint32_t unused_magic = 0;
    std::uint32_t driver_version = 1;
    std::uint32_t guest = 2 | 1 << 2; ///< 64 bits, Linux: frames may have several buffers
    std::uint32_t revisions = 1;
    std::uint32_t transport_revisions = 1;
    std::uint64_t features = 0;
    std::uint64_t driver_data = 0;
    std::uint64_t queues = 0;
    std::uint32_t driver_data_bytes = 0;
    std::uint32_t queue_bytes = 0;
    std::uint32_t longest_payload = vmxnet3::longest_payload;
    std::uint16_t most_buffers = 2; ///< of a received frame
    std::uint8_t transmit_queues = 1;
    std::uint8_t receive_queues = 1;
    std::array<std::uint32_t, 4> unused_configuration{};
    std::uint8_t masks_itself = 0;
    std::uint8_t vectors = 1;
    std::uint8_t event_vector = 0;
    std::array<std::uint8_t, 25> moderation{};
    std::uint32_t interrupt_control = 0;
    std::array<std::uint32_t, 2> unused_interrupts{};
    std::uint32_t receive_mode = 0x1f; ///< all frames
    std::uint32_t multicast_bytes = 0;
    std::uint64_t multicast = 0;
    std::array<std::uint32_t, 128> vlans{};
    std::array<std::byte, 48> other_configurations{};
    std::uint32_t events = 0;
    std::array<std::uint32_t, 5> unused{};
};

static_assert(sizeof(SharedArea) == 720);

struct TransmitQueue {
    std::array<std::uint64_t, 2> control{};
    std::uint64_t ring = 0;
    std::uint64_t data_ring = 0;
    std::uint64_t completions = 0;
    std::array<std::uint64_t, 2> driver_data{};
    std::uint32_t entries = ring_entries;
    std::uint32_t data_entries = 0;
    std::uint32_t completion_entries = ring_entries;
    std::uint32_t driver_data_bytes = 0;
    std::uint8_t vector = 0;
    std::array<std::byte, 183> unused{}; ///< and state, which the device writes on demand
};

struct ReceiveQueue {
    std::array<std::uint64_t, 2> control{};
    std::array<std::uint64_t, 2> rings{}; ///< of heads, and of bodies
    std::uint64_t completions = 0;
    std::array<std::uint64_t, 2> driver_data{};
    std::array<std::uint32_t, 2> entries = {ring_entries, ring_entries};
    std::uint32_t completion_entries = 2 * ring_entries;
    std::uint32_t driver_data_bytes = 0;
    std::uint8_t vector = 0;
    std::array<std::byte, 183> unused{};
};

/// An array of transmit queues, then one of receive queues.
struct Queues {
    TransmitQueue transmit;
    ReceiveQueue receive;
};

static_assert(sizeof(TransmitQueue) == 256 && sizeof(ReceiveQueue) == 256);
static_assert(offsetof(TransmitQueue, vector) == 72 && offsetof(ReceiveQueue, vector) == 72);

/// Every descriptor and completion has 4 words.
using Entry = std::array<std::uint32_t, 4>;

constexpr Entry entry_of(Iova address, std::uint32_t first, std::uint32_t second = 0) {
    return {static_cast<std::uint32_t>(address.value()),
            static_cast<std::uint32_t>(address.value() >> 32), first, second};
}

/// Of a transmit descriptor's last word: the last of its frame, which asks for a completion.
constexpr std::uint32_t end_of_frame = 1U << 12 | 1U << 13;
/// Of a receive descriptor's third word.
constexpr std::uint32_t is_body = 1U << 14;
/// Of a receive completion's first and third word.
constexpr std::uint32_t ends_frame = 1U << 14;
constexpr std::uint32_t has_error = 1U << 14;
constexpr std::uint32_t length_mask = 0x3fff;

/// Where a kind of entry has its generation, which changes with each round of the ring and so shows
/// what is new.
struct Generation {
    unsigned word;
    std::uint32_t bit;
};

constexpr Generation of_transmit{.word = 2, .bit = 1U << 14};
constexpr Generation of_receive{.word = 2, .bit = 1U << 31};
constexpr Generation of_completion{.word = 3, .bit = 1U << 31};

/// A ring at its next entry.
class Ring {
  public:
    explicit Ring(Generation generation, unsigned entries = ring_entries)
        : generation_(generation), entries_(entries) {}

    /// For obtain().
    [[nodiscard]] KeptBuffer needed(std::string_view name, Direction direction) {
        return {memory_, {name, direction, ByteCount(entries_ * sizeof(Entry)), ring_lg2}};
    }

    void clear() {
        std::ranges::fill(memory_.bytes, std::byte{0});
        next_ = 0;
        new_bit_ = generation_.bit;
    }

    /// Writes the entry that follows `ahead` others; releases it with its generation.
    void write(unsigned ahead, const Entry& entry) {
        for (unsigned i = 0; i != entry.size(); ++i)
            if (i != generation_.word)
                words(ahead)[i] = entry.at(i);
        word(ahead).store(entry.at(generation_.word) | new_bit(ahead), std::memory_order_release);
    }

    /// Whether the entry that follows `ahead` others is new; acquires what was written before it.
    [[nodiscard]] bool is_new(unsigned ahead) const {
        return (word(ahead).load(std::memory_order_acquire) & generation_.bit) == new_bit(ahead);
    }

    [[nodiscard]] Entry read(unsigned ahead) const {
        Entry entry{};
        std::memcpy(&entry, words(ahead), sizeof entry);
        return entry;
    }

    void advance(unsigned count) {
        new_bit_ = new_bit(count);
        next_ = (next_ + count) % entries_;
    }

    [[nodiscard]] Iova iova() const { return memory_.iova; }

    [[nodiscard]] unsigned next() const { return next_; }

  private:
    [[nodiscard]] std::uint32_t new_bit(unsigned ahead) const {
        return next_ + ahead < entries_ ? new_bit_ : new_bit_ ^ generation_.bit;
    }

    [[nodiscard]] std::uint32_t* words(unsigned ahead) const {
        const std::size_t at = (next_ + ahead) % entries_ * sizeof(Entry);
        return reinterpret_cast<std::uint32_t*>(memory_.bytes.data() + at);
    }

    /// With the generation.
    [[nodiscard]] std::atomic_ref<std::uint32_t> word(unsigned ahead) const {
        return std::atomic_ref(words(ahead)[generation_.word]);
    }

    const Generation generation_;
    const unsigned entries_;
    Buffer memory_{};
    unsigned next_ = 0;
    std::uint32_t new_bit_ = 0;
};

enum Place : std::uint8_t { transmit_place, receive_place };

/// Frames come back to the store, so that a later operation sends them to the data.
constexpr std::array<Operation, 2> operations_of_vmxnet3 = {{{.name = "transmit",
                                                              .direction = Direction::to_device,
                                                              .longest = longest,
                                                              .shortest = ByteCount(1),
                                                              .content = Content::stores},
                                                             {.name = "receive",
                                                              .direction = Direction::from_device,
                                                              .longest = longest,
                                                              .shortest = ByteCount(1),
                                                              .content = Content::loads}}};

class Vmxnet3 final : public DeviceDriver {
  public:
    Vmxnet3(const Seat& seat, machine::Registers& doorbells, machine::Registers& registers)
        : DeviceDriver("vmxnet3", operations_of_vmxnet3, seat,
                       {.size = store_bytes, .is_kept = false}),
          doorbells_(doorbells), registers_(registers) {}

    ~Vmxnet3() override {
        if (has_registers())
            static_cast<void>(send(Command::reset));
    }

    [[nodiscard]] Result<Answer> do_run(const Request& request) override;
    [[nodiscard]] Result<bool> delete_queues() override;

    Result<void> prepare();

  private:
    [[nodiscard]] bool has_registers() const {
        return doorbells_.size() >= ByteCount(0x1000) && registers_.size() >= ByteCount(0x1000);
    }

    /// Return: the command's result; 0 if it succeeded.
    std::uint32_t send(Command command) {
        registers_.write32(reg::command, static_cast<std::uint32_t>(command));
        return registers_.read32(reg::command);
    }

    void describe();
    Result<void> start();
    void post(Iova from, Iova to, std::uint32_t length);
    Result<bool> wait();
    Answer answer(std::uint32_t length);

    machine::Registers& doorbells_;
    machine::Registers& registers_;
    Buffer shared_{};
    Buffer queues_{};
    Ring transmit_{of_transmit};
    Ring transmitted_{of_completion};
    Ring heads_{of_receive};
    Ring bodies_{of_receive};
    Ring received_{of_completion, 2 * ring_entries};
    Buffer sent_head_{};
    Buffer received_head_{};
    Buffer store_{};
    unsigned receive_vector_ = 0;
    bool running_ = false;
};

Result<void> Vmxnet3::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a device with too few registers");
    if ((registers_.read32(reg::revision) & registers_.read32(reg::transport_revision) & 1) == 0)
        return fail(ErrorCode::unsupported, "a device without revision 1");
    using enum Direction;
    MOAT_TRY(obtain({{shared_, {"shared area", bidirectional, ByteCount(sizeof(SharedArea)), 3}},
                     {queues_, {"queue descriptors", bidirectional, ByteCount(sizeof(Queues)), 7}},
                     transmit_.needed("transmit ring", to_device),
                     transmitted_.needed("transmit completion ring", from_device),
                     heads_.needed("first receive ring", to_device),
                     bodies_.needed("second receive ring", to_device),
                     received_.needed("receive completion ring", bidirectional),
                     {sent_head_, {"sent head", to_device, head_bytes, 0}},
                     {received_head_, {"received head", from_device, head_bytes, 0}},
                     {store_, {"frame store", bidirectional, store_bytes, 0}}}));
    // A broadcast frame of an experimental type (IEEE 802, 0x88b5).
    std::ranges::fill(sent_head_.bytes.first(6), std::byte{0xff});
    sent_head_.bytes[12] = std::byte{0x88};
    sent_head_.bytes[13] = std::byte{0xb5};
    registers_.write32(reg::revision, 1);
    registers_.write32(reg::transport_revision, 1);
    MOAT_TRY(enable_interrupts(2));
    receive_vector_ = vectors() > 1 ? 1 : 0;
    return start();
}

/// Writes what the device reads when it is activated.
void Vmxnet3::describe() {
    for (Ring* const each : {&transmit_, &transmitted_, &heads_, &bodies_, &received_})
        each->clear();
    const auto receive_vector = static_cast<std::uint8_t>(receive_vector_);
    const Queues queues{
        .transmit = {.ring = transmit_.iova().value(), .completions = transmitted_.iova().value()},
        .receive = {.rings = {heads_.iova().value(), bodies_.iova().value()},
                    .completions = received_.iova().value(),
                    .vector = receive_vector}};
    std::memcpy(queues_.bytes.data(), &queues, sizeof queues);
    const SharedArea shared{.queues = queues_.iova.value(),
                            .queue_bytes = sizeof queues,
                            .vectors = static_cast<std::uint8_t>(receive_vector + 1)};
    std::memcpy(shared_.bytes.data(), &shared, sizeof shared);
}

Result<void> Vmxnet3::start() {
    static_cast<void>(send(Command::reset));
    describe();
    function().set_bus_master(true);
    registers_.write32(reg::shared_low, static_cast<std::uint32_t>(shared_.iova.value()));
    registers_.write32(reg::shared_high, static_cast<std::uint32_t>(shared_.iova.value() >> 32));
    const std::uint32_t status = send(Command::activate);
    MOAT_TRY(health());
    if (status != 0)
        return fail(ErrorCode::io, "the device rejects its configuration", {"status", status});
    for (unsigned vector = 0; vector <= receive_vector_; ++vector)
        doorbells_.write32(doorbell::interrupt_mask + vector * doorbell::stride, 0);
    running_ = true;
    return {};
}

Result<bool> Vmxnet3::delete_queues() {
    if (!running_)
        return false;
    running_ = false;
    const std::uint32_t status = send(Command::quiesce);
    MOAT_TRY(health());
    return status == 0;
}

/// A frame's head is described last, because the device may fetch at any time.
void Vmxnet3::post(Iova from, Iova to, std::uint32_t length) {
    constexpr auto head_length = static_cast<std::uint32_t>(head_bytes.value());
    bodies_.write(0, entry_of(to, length | is_body));
    heads_.write(0, entry_of(received_head_.iova, head_length));
    transmit_.write(1, entry_of(from, length, end_of_frame));
    transmit_.write(0, entry_of(sent_head_.iova, head_length));
    bodies_.advance(1);
    heads_.advance(1);
    transmit_.advance(2);
    doorbells_.write32(doorbell::receive_bodies, bodies_.next());
    doorbells_.write32(doorbell::receive_heads, heads_.next());
    doorbells_.write32(doorbell::transmit, transmit_.next());
}

/// Return: whether the frame was sent and received.
Result<bool> Vmxnet3::wait() {
    auto is_broken = [] { return false; };
    auto is_sent = [&] { return transmitted_.is_new(0); };
    MOAT_LET(const bool sent, wait_for_completion(0, is_sent, is_broken, 500ms));
    if (!sent)
        return false;
    auto is_received = [&] {
        return received_.is_new(0) &&
               ((received_.read(0)[0] & ends_frame) != 0 || received_.is_new(1));
    };
    return wait_for_completion(receive_vector_, is_received, is_broken, 500ms);
}

/// The device completes each buffer of a frame.
Answer Vmxnet3::answer(std::uint32_t length) {
    const Entry head = received_.read(0);
    const Entry body = received_.read(1);
    const bool has_both = (head[0] & ends_frame) == 0 && (body[0] & ends_frame) != 0;
    const bool is_good = has_both && (body[2] & has_error) == 0 &&
                         (head[2] & length_mask) == head_bytes.value() &&
                         (body[2] & length_mask) == length;
    transmitted_.advance(1);
    received_.advance(2);
    return {is_good ? Verdict::success : Verdict::failure, body[2]};
}

Result<Answer> Vmxnet3::do_run(const Request& request) {
    if (request.position > store_bytes.value() - request.length.value())
        return fail(ErrorCode::out_of_range, "outside of the frame store",
                    {"position", request.position}, {"length", request.length.value()});
    if (!running_)
        MOAT_TRY(start());
    const auto length = static_cast<std::uint32_t>(request.length.value());
    const Iova stored = store_.iova + ByteCount(request.position);
    if (request.operation == receive_place)
        post(stored, request.data, length);
    else
        post(request.data, stored, length);
    MOAT_LET(const bool waited, wait());
    const std::uint64_t sent = transmitted_.is_new(0) ? 1 : 0;
    const Answer said = waited ? answer(length) : Answer{Verdict::no_answer, sent};
    running_ = said.verdict == Verdict::success; // otherwise rings may be out of step
    return said;
}

} // namespace vmxnet3

Result<std::unique_ptr<Driver>> start_vmxnet3(const Seat& seat) {
    MOAT_LET(machine::Registers* const doorbells, seat.function.bar(0));
    MOAT_LET(machine::Registers* const registers, seat.function.bar(1));
    auto driver = std::make_unique<vmxnet3::Vmxnet3>(seat, *doorbells, *registers);
    MOAT_TRY(driver->prepare());
    return driver;
}

} // namespace moat::audit
