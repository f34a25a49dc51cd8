// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "dma/space_recorder.hpp"

#include "moat/core/text.hpp"

#include "fault/recording.hpp"

#include <array>
#include <chrono>
#include <deque>
#include <fstream>
#include <mutex>
#include <ostream>
#include <utility>

namespace moat::dma {

namespace {

using fault::DmaEvent;

constexpr std::uint64_t flush_interval_ns = 1'000'000'000;
constexpr std::size_t most_frames = 32;

[[nodiscard]] std::uint64_t steady_ns() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
}

} // namespace

class SpaceRecorder::State {
  public:
    State(std::ofstream file, std::ostream& errors, fault::Symbolise symbolise)
        : file_(std::move(file)), errors_(errors),
          writer_([this](std::span<const std::uint8_t> bytes) { return write(bytes); }, symbolise) {
    }

    /// A space of this recorder.
    struct Source {
        State& state;
        std::string device;
        CaptureStack capture;
    };

    Source& add_source(std::string_view device, CaptureStack capture) {
        const std::lock_guard lock(mutex_);
        const auto group = static_cast<std::uint32_t>(sources_.size());
        Source& source = sources_.emplace_back(Source{*this, std::string(device), capture});
        add_locked({.kind = DmaEvent::Kind::device, .device = source.device, .group = group});
        return source;
    }

    /// The order of the file is the order of times.
    void add(const Source& source, DmaEvent event) {
        std::array<std::uintptr_t, most_frames> frames;
        if (source.capture != nullptr)
            event.stack = {frames.data(), source.capture(frames)};
        event.device = source.device;
        const std::lock_guard lock(mutex_);
        add_locked(event);
    }

    [[nodiscard]] Result<void> flush() {
        const std::lock_guard lock(mutex_);
        return flush_locked();
    }

  private:
    void add_locked(DmaEvent event) {
        event.time_ns = steady_ns();
        if (failure_)
            return;
        // An event beyond the format's limits, as a label above 16 KiB, is left out.
        if (const auto added = writer_.add(event);
            !added && added.error().code() != ErrorCode::limit)
            return fail_once(added.error());
        if (event.kind == DmaEvent::Kind::fault || event.time_ns - flushed_ns_ >= flush_interval_ns)
            (void)flush_locked();
    }

    [[nodiscard]] Result<void> flush_locked() {
        if (failure_)
            return std::unexpected(*failure_);
        flushed_ns_ = steady_ns();
        const Result<void> flushed = writer_.flush();
        if (!flushed)
            fail_once(flushed.error());
        return flushed;
    }

    void fail_once(const Error& error) {
        failure_ = error;
        errors_ << "moat: the recording ends here: " << error << '\n';
    }

    [[nodiscard]] Result<void> write(std::span<const std::uint8_t> bytes) {
        file_.write(reinterpret_cast<const char*>(bytes.data()),
                    static_cast<std::streamsize>(bytes.size()));
        if (!file_.flush())
            return fail(ErrorCode::io, "the recording cannot be written", {"bytes", bytes.size()});
        return {};
    }

    std::mutex mutex_;
    std::ofstream file_;
    std::ostream& errors_;
    fault::RecordingWriter writer_;
    std::deque<Source> sources_;
    std::optional<Error> failure_;
    std::uint64_t flushed_ns_ = 0;
};

SpaceRecorder::SpaceRecorder(std::unique_ptr<State> state) : state_(std::move(state)) {}

SpaceRecorder::~SpaceRecorder() {
    (void)flush(); // a failure was written to `errors`
}

Result<std::unique_ptr<SpaceRecorder>>
SpaceRecorder::create(const std::string& file, std::ostream& errors, fault::Symbolise symbolise) {
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    if (!out)
        return fail(ErrorCode::io, "the recording cannot be created");
    return std::unique_ptr<SpaceRecorder>(
        new SpaceRecorder(std::make_unique<State>(std::move(out), errors, symbolise)));
}

Recorder SpaceRecorder::recorder(std::string_view device, CaptureStack capture) {
    using Source = State::Source;
    return {.map =
                [](void* context, const RecordedMap& map) noexcept {
                    const auto& source = *static_cast<const Source*>(context);
                    source.state.add(source, {.kind = DmaEvent::Kind::map,
                                              .call = map.label,
                                              .range = map.range,
                                              .physical = map.memory.value(),
                                              .allows = allows_of(map.direction)});
                },
            .unmap =
                [](void* context, IovaRange range) noexcept {
                    const auto& source = *static_cast<const Source*>(context);
                    source.state.add(source, {.kind = DmaEvent::Kind::unmap, .range = range});
                },
            .fault =
                [](void* context, const fault::Record& record) noexcept {
                    const auto& source = *static_cast<const Source*>(context);
                    source.state.add(source, {.kind = DmaEvent::Kind::fault, .record = record});
                },
            .context = &state_->add_source(device, capture)};
}

Result<void> SpaceRecorder::flush() {
    return state_->flush();
}

} // namespace moat::dma
