// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The driver of Intel High Definition Audio controllers: the first codec's first converters, each
// with a stream over a cyclic buffer that goes around twice.
// Source: High Definition Audio Specification 1.0a: 3.3 (registers), 3.6 (buffer descriptors), 4.2
// to 4.5 (start, verbs, streams), 7.3 (verbs).
#include "audit/driver.hpp"
#include "audit/drivers/device.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <vector>

namespace moat::audit {
namespace hda {

using namespace std::chrono_literals;

namespace reg {

constexpr unsigned capabilities = 0x00;
constexpr unsigned control = 0x08;
constexpr unsigned codecs = 0x0e;
constexpr unsigned command_ring = 0x40;
constexpr unsigned response_ring = 0x50;
constexpr unsigned positions = 0x70;
constexpr unsigned first_stream = 0x80;
constexpr unsigned stream_bytes = 0x20;
// Of a ring:
constexpr unsigned write_pointer = 0x08;
constexpr unsigned read_pointer = 0x0a;    ///< the command ring's
constexpr unsigned interrupt_after = 0x0a; ///< the response ring's
constexpr unsigned ring_control = 0x0c;
constexpr unsigned ring_status = 0x0d;
// Of a stream:
constexpr unsigned stream_control = 0x00;
constexpr unsigned stream_tag = 0x02;
constexpr unsigned stream_status = 0x03;
constexpr unsigned cyclic_length = 0x08;
constexpr unsigned last_index = 0x0c;
constexpr unsigned format = 0x12;
constexpr unsigned descriptors = 0x18;

} // namespace reg

constexpr std::uint16_t reset_pointer = 1U << 15;
constexpr std::uint8_t run_commands = 1U << 1;
constexpr std::uint8_t overrun = 1U << 2; ///< of the response ring: reported, if enabled
constexpr std::uint8_t run_responses = 1U << 1 | 1U << 0; ///< with interrupts after some
constexpr std::uint8_t reset_stream = 1U << 0;
constexpr std::uint8_t run_stream = 1U << 1;
constexpr std::uint8_t buffer_completed = 1U << 2;
constexpr std::uint8_t stream_errors = 1U << 3 | 1U << 4;
constexpr std::uint8_t stream_events = buffer_completed | stream_errors;

/// 3.7.1: 48 kHz, 16 bits, 2 channels, which every codec supports.
constexpr std::uint16_t stereo_48_khz = 1U << 4 | 1U;

constexpr std::size_t ring_entries = 256;
constexpr unsigned grain_lg2 = 7;
constexpr std::uint64_t grain = std::uint64_t{1} << grain_lg2; ///< of buffers' sizes and addresses
constexpr ByteCount shortest(2 * grain);
constexpr ByteCount longest(64 * grain);
constexpr unsigned most_descriptors = 8;

/// 3.6.3
struct BufferDescriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint32_t interrupts; ///< bit 0: on completion
};

static_assert(sizeof(BufferDescriptor) == 16);

constexpr unsigned descriptors_for(ByteCount length) {
    return static_cast<unsigned>(std::min<std::uint64_t>(most_descriptors, length.value() / grain));
}

/// 7.3.3, with the parameter in the lower bits.
enum class Verb : std::uint32_t {
    set_format = 0x20000,
    set_power = 0x70500,
    set_stream = 0x70600,
    get_parameter = 0xf0000,
};

/// 7.3.4
enum class Parameter : std::uint8_t {
    vendor = 0x00,
    nodes = 0x04,
    group_type = 0x05,
    widget = 0x09
};

/// Where a stream ends in the codec, and its registers in the controller.
struct Channel {
    unsigned node = 0; ///< 0: the codec has none
    unsigned stream = 0;
    std::uint8_t tag = 0;
};

struct Nodes {
    unsigned first;
    unsigned count;
};

struct Response {
    bool arrived = false;
    std::uint8_t status = 0; ///< of the response ring
    std::uint32_t value = 0;
};

class Hda final : public DeviceDriver {
  public:
    Hda(const Seat& seat, machine::Registers& registers)
        : DeviceDriver("hda", {}, seat), registers_(registers) {}

    ~Hda() override {
        if (has_registers())
            registers_.write32(reg::control, 0);
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override;
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;

    Result<void> prepare();

  private:
    [[nodiscard]] bool has_registers() const { return registers_.size() >= ByteCount(0x1000); }

    Result<void> start();
    Result<void> start_rings();
    Result<void> find_converters();
    Result<void> connect(const Channel& channel);
    Result<Response> execute(unsigned node, Verb verb, std::uint32_t payload);
    Result<std::uint32_t> require_response(unsigned node, Verb verb, std::uint32_t payload);

    Result<std::uint32_t> parameter(unsigned node, Parameter which) {
        return require_response(node, Verb::get_parameter, static_cast<std::uint32_t>(which));
    }

    Result<Nodes> nodes_below(unsigned node);
    Result<void> describe(const Request& request);
    Result<void> set_up(machine::Registers& stream, const Channel& channel, const Request& request);
    Result<Answer> ask_vendor();
    Result<Answer> go_around(const Request& request, const Channel& channel);

    void add(const Operation& operation, const Channel& channel) {
        operations_.push_back(operation);
        channels_.push_back(channel);
    }

    machine::Registers& registers_;
    Buffer commands_{};
    Buffer responses_{};
    Buffer positions_{};
    std::vector<Operation> operations_;
    std::vector<Channel> channels_; ///< by operation
    unsigned inputs_ = 0;           ///< streams; the first output is behind them
    unsigned outputs_ = 0;
    unsigned codec_ = 0;
    std::uint32_t vendor_ = 0;
    bool running_ = false;
};

Result<void> Hda::prepare() {
    if (!has_registers())
        return fail(ErrorCode::io, "a controller with too few registers");
    using enum Direction;
    const unsigned capabilities = registers_.read16(reg::capabilities);
    inputs_ = capabilities >> 8 & 0xf;
    outputs_ = capabilities >> 12 & 0xf;
    const unsigned streams = inputs_ + outputs_ + (capabilities >> 3 & 0x1f);
    if (streams == 0 || reg::first_stream + reg::stream_bytes * streams > registers_.size().value())
        return fail(ErrorCode::io, "the controller's streams do not fit its registers",
                    {"streams", streams});
    MOAT_TRY(obtain(
        {{commands_, {"command ring", to_device, ByteCount(ring_entries * 4), grain_lg2}},
         {responses_, {"response ring", from_device, ByteCount(ring_entries * 8), grain_lg2}},
         {positions_,
          {"position buffer", from_device, ByteCount(std::uint64_t{8} * streams), grain_lg2}}}));
    MOAT_TRY(start());
    MOAT_LET(vendor_, parameter(0, Parameter::vendor));
    MOAT_TRY(find_converters());
    set_operations(operations_);
    for (const Channel& each : channels_)
        MOAT_TRY(connect(each));
    return {};
}

/// 4.2.2, 4.3
Result<void> Hda::start() {
    constexpr std::uint32_t runs = 1U << 0;
    running_ = false;
    function().set_bus_master(true);
    registers_.write32(reg::control, 0);
    auto is_off = [&] { return (registers_.read32(reg::control) & runs) == 0; };
    MOAT_TRY(require(is_off, 1s, "the audio controller does not enter its reset"));
    registers_.write32(reg::control, runs);
    auto is_on = [&] { return (registers_.read32(reg::control) & runs) != 0; };
    MOAT_TRY(require(is_on, 1s, "the audio controller does not leave its reset"));
    auto has_codec = [&] { return registers_.read16(reg::codecs) != 0; };
    MOAT_TRY(require(has_codec, 1s, "the audio controller has no codec"));
    codec_ = static_cast<unsigned>(std::countr_zero(registers_.read16(reg::codecs))) & 0xf;
    MOAT_TRY(start_rings());
    registers_.write_halves(reg::positions, positions_.iova.value() | 1); // enabled
    running_ = true;
    return {};
}

/// 4.4.1 and 4.4.2; both rings have 256 entries after a reset.
Result<void> Hda::start_rings() {
    Window commands(registers_, reg::command_ring, 0x10);
    Window responses(registers_, reg::response_ring, 0x10);
    commands.write_halves(0, commands_.iova.value());
    commands.write16(reg::write_pointer, 0);
    commands.write16(reg::read_pointer, reset_pointer);
    auto is_reset = [&] { return (commands.read16(reg::read_pointer) & reset_pointer) != 0; };
    MOAT_TRY(require(is_reset, 1s, "the command ring is not reset"));
    commands.write16(reg::read_pointer, 0);
    responses.write_halves(0, responses_.iova.value());
    responses.write16(reg::write_pointer, reset_pointer);
    responses.write16(reg::interrupt_after, 1);
    responses.write8(reg::ring_control, run_responses | overrun);
    commands.write8(reg::ring_control, run_commands);
    return health();
}

/// 4.4: one verb, and its response.
Result<Response> Hda::execute(unsigned node, Verb verb, std::uint32_t payload) {
    Window commands(registers_, reg::command_ring, 0x10);
    Window responses(registers_, reg::response_ring, 0x10);
    const std::uint32_t word =
        codec_ << 28 | node << 20 | static_cast<std::uint32_t>(verb) | payload;
    const std::size_t before = responses.read16(reg::write_pointer) & 0xffU;
    const std::size_t at = (commands.read16(reg::write_pointer) + 1U) % ring_entries;
    std::memcpy(commands_.bytes.data() + 4 * at, &word, sizeof word);
    commands.write16(reg::write_pointer, static_cast<std::uint16_t>(at));
    std::size_t last = before;
    auto responded = [&] {
        last = responses.read16(reg::write_pointer) & 0xffU;
        return last != before;
    };
    Response response;
    MOAT_LET(const bool waited, wait_until(responded, 1s));
    response.status = responses.read8(reg::ring_status);
    responses.write8(reg::ring_status, response.status);
    response.arrived = waited && (response.status & overrun) == 0;
    std::memcpy(&response.value, responses_.bytes.data() + 8 * last, sizeof response.value);
    running_ = running_ && response.arrived;
    return response;
}

Result<std::uint32_t> Hda::require_response(unsigned node, Verb verb, std::uint32_t payload) {
    MOAT_LET(const Response response, execute(node, verb, payload));
    if (!response.arrived)
        return fail(ErrorCode::io, "the codec does not respond",
                    {"verb", static_cast<std::uint64_t>(verb) | payload},
                    {"status", response.status});
    return response.value;
}

/// 7.3.4.3: the first node below `node`, and how many there are.
Result<Nodes> Hda::nodes_below(unsigned node) {
    MOAT_LET(const std::uint32_t found, parameter(node, Parameter::nodes));
    return Nodes{found >> 16 & 0xff, found & 0xff};
}

/// The first analogue converter of each direction in the first audio function group.
Result<void> Hda::find_converters() {
    constexpr std::uint32_t audio_group = 1;
    constexpr std::uint32_t is_digital = 1U << 9;
    std::array<Channel, 2> found{}; // by the widget's type: output, input
    found[0] = {.node = 0, .stream = inputs_, .tag = 1};
    found[1] = {.node = 0, .stream = 0, .tag = 2};
    MOAT_LET(const Nodes groups, nodes_below(0));
    for (unsigned group = groups.first; group != groups.first + groups.count; ++group) {
        MOAT_LET(const std::uint32_t type, parameter(group, Parameter::group_type));
        if ((type & 0xff) != audio_group)
            continue;
        MOAT_TRY(require_response(group, Verb::set_power, 0));
        MOAT_LET(const Nodes widgets, nodes_below(group));
        for (unsigned each = widgets.first; each != widgets.first + widgets.count; ++each) {
            MOAT_LET(const std::uint32_t widget, parameter(each, Parameter::widget));
            const std::uint32_t kind = widget >> 20 & 0xf;
            if (kind < found.size() && (widget & is_digital) == 0 && found.at(kind).node == 0)
                found.at(kind).node = each;
        }
        break;
    }
    using enum Direction;
    const auto over_a_cycle = [](std::string_view name, Direction direction) {
        return Operation{.name = name,
                         .direction = direction,
                         .alignment_lg2 = grain_lg2,
                         .granule = ByteCount(grain),
                         .longest = longest,
                         .shortest = shortest};
    };
    if (found[1].node != 0 && inputs_ != 0)
        add(over_a_cycle("capture", from_device), found[1]);
    if (found[0].node != 0 && outputs_ != 0)
        add(over_a_cycle("playback", to_device), found[0]);
    if (channels_.empty())
        return fail(ErrorCode::unsupported, "no converter of the codec has a stream");
    operations_.push_back({"verb", to_device, 0, ByteCount(1), ByteCount(0)});
    return {};
}

/// 7.3.3.8, 7.3.3.11
Result<void> Hda::connect(const Channel& channel) {
    MOAT_TRY(require_response(channel.node, Verb::set_power, 0));
    MOAT_TRY(require_response(channel.node, Verb::set_format, stereo_48_khz));
    MOAT_TRY(require_response(channel.node, Verb::set_stream, std::uint32_t{channel.tag} << 4));
    return {};
}

std::vector<Need> Hda::lists_for(const Request& request) const {
    if (request.length == ByteCount(0))
        return {};
    return {{.what = "buffer descriptor list",
             .direction = Direction::to_device,
             .size = ByteCount(descriptors_for(request.length) * sizeof(BufferDescriptor)),
             .alignment_lg2 = grain_lg2}};
}

/// 3.6.2: parts that differ by a grain at most; the last one reports its completion.
Result<void> Hda::describe(const Request& request) {
    const unsigned count = descriptors_for(request.length);
    if (request.lists.size() != 1 ||
        request.lists[0].bytes.size() < count * sizeof(BufferDescriptor))
        return fail(ErrorCode::out_of_range, "the operation needs a buffer descriptor list",
                    {"descriptors", count});
    const std::uint64_t grains = request.length.value() / grain;
    for (unsigned i = 0; i != count; ++i) {
        const std::uint64_t start = grains * i / count * grain;
        const std::uint64_t end = grains * (i + 1) / count * grain;
        const BufferDescriptor descriptor{.address = request.data.value() + start,
                                          .length = static_cast<std::uint32_t>(end - start),
                                          .interrupts = i + 1 == count ? 1U : 0U};
        std::memcpy(request.lists[0].bytes.data() + i * sizeof descriptor, &descriptor,
                    sizeof descriptor);
    }
    return {};
}

/// 4.5.3
Result<void> Hda::set_up(machine::Registers& stream, const Channel& channel,
                         const Request& request) {
    stream.write8(reg::stream_control, reset_stream);
    auto is_reset = [&] { return (stream.read8(reg::stream_control) & reset_stream) != 0; };
    MOAT_TRY(require(is_reset, 1s, "the stream does not enter its reset"));
    stream.write8(reg::stream_control, 0);
    auto is_ready = [&] { return (stream.read8(reg::stream_control) & reset_stream) == 0; };
    MOAT_TRY(require(is_ready, 1s, "the stream does not leave its reset"));
    stream.write8(reg::stream_status, stream_events);
    stream.write8(reg::stream_tag, static_cast<std::uint8_t>(channel.tag << 4));
    stream.write32(reg::cyclic_length, static_cast<std::uint32_t>(request.length.value()));
    stream.write16(reg::last_index,
                   static_cast<std::uint16_t>(descriptors_for(request.length) - 1));
    stream.write16(reg::format, stereo_48_khz);
    stream.write_halves(reg::descriptors, request.lists[0].iova.value());
    return {};
}

Result<Answer> Hda::do_run(const Request& request) {
    if (!running_) {
        MOAT_TRY(start());
        for (const Channel& each : channels_)
            MOAT_TRY(connect(each));
    }
    if (request.operation == channels_.size())
        return ask_vendor();
    MOAT_TRY(describe(request));
    return go_around(request, channels_[request.operation]);
}

/// Success is the same response as at the start.
Result<Answer> Hda::ask_vendor() {
    MOAT_LET(const Response response,
             execute(0, Verb::get_parameter, static_cast<std::uint32_t>(Parameter::vendor)));
    if (!response.arrived)
        return Answer{Verdict::no_answer, response.status};
    return Answer{response.value == vendor_ ? Verdict::success : Verdict::failure, response.value};
}

/// 4.5.3, 4.5.4: runs the stream until it completed its buffer twice, then stops it.
Result<Answer> Hda::go_around(const Request& request, const Channel& channel) {
    Window stream(registers_, reg::first_stream + std::uint64_t{channel.stream} * reg::stream_bytes,
                  reg::stream_bytes);
    MOAT_TRY(set_up(stream, channel, request));
    stream.write8(reg::stream_control, run_stream);
    constexpr unsigned wanted = 2;
    unsigned rounds = 0;
    unsigned status = 0;
    auto has_gone_around = [&] {
        status = stream.read8(reg::stream_status);
        if ((status & buffer_completed) != 0) {
            stream.write8(reg::stream_status, buffer_completed);
            ++rounds;
        }
        return rounds == wanted || (status & stream_errors) != 0;
    };
    MOAT_LET(const bool waited, wait_until(has_gone_around, 1s));
    stream.write8(reg::stream_control, 0);
    auto has_stopped = [&] { return (stream.read8(reg::stream_control) & run_stream) == 0; };
    MOAT_LET(const bool stopped, wait_until(has_stopped, 1s));
    std::uint32_t position = 0;
    std::memcpy(&position, positions_.bytes.data() + std::size_t{8} * channel.stream,
                sizeof position);
    const std::uint64_t code = std::uint64_t{status} << 32 | position;
    running_ = waited && stopped;
    if (!running_)
        return Answer{Verdict::no_answer, code};
    return Answer{(status & stream_errors) == 0 ? Verdict::success : Verdict::failure, code};
}

} // namespace hda

Result<std::unique_ptr<Driver>> start_hda(const Seat& seat) {
    return started<hda::Hda>(seat, 0);
}

} // namespace moat::audit
