// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Writes recordings. Each text, stack and site is defined at its first use, in front of the event.
#include "recording.hpp"
#include "recording_format.hpp"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace moat::fault {

namespace recording {

struct Hash {
    using is_transparent = void;

    static std::size_t mix(std::size_t sum, std::uint64_t value) {
        return (sum ^ value) * 0x9e3779b97f4a7c15U ^ sum >> 29;
    }

    std::size_t operator()(std::string_view text) const {
        return std::hash<std::string_view>()(text);
    }

    std::size_t operator()(StackView stack) const {
        std::size_t sum = stack.size();
        for (const std::uintptr_t each : stack)
            sum = mix(sum, each);
        return sum;
    }

    std::size_t operator()(const Site& site) const {
        std::size_t sum = static_cast<std::size_t>(site.kind) << 16 |
                          static_cast<std::size_t>(site.has) << 8 |
                          static_cast<std::size_t>(site.allows);
        for (const std::uint32_t each :
             {site.thread, site.group, site.device, site.driver, site.call, site.task, site.stack})
            sum = mix(sum, each);
        return sum;
    }

    std::size_t operator()(const IovaRange& range) const {
        return mix(range.start().value(), range.size().value());
    }
};

struct SameStack {
    using is_transparent = void;

    bool operator()(StackView a, StackView b) const { return std::ranges::equal(a, b); }
};

} // namespace recording

namespace {

using recording::Encoder;
using recording::Has;
using recording::RecordHas;
using recording::Site;
using recording::Tag;

constexpr std::size_t most_waiting_bytes = 65536;

void encode_record(Encoder& out, const Record& record) {
    out.byte(static_cast<std::uint8_t>(
        (record.source.segment() ? RecordHas::segment : 0) |
        (record.domain ? RecordHas::domain : 0) | (record.pasid ? RecordHas::pasid : 0) |
        (record.code ? RecordHas::code : 0) | (record.time_ns ? RecordHas::time : 0)));
    out.byte(static_cast<std::uint8_t>(record.source.kind()));
    out.number(record.source.id());
    out.byte(static_cast<std::uint8_t>(record.access));
    out.byte(static_cast<std::uint8_t>(record.precision));
    out.byte(static_cast<std::uint8_t>(record.reason));
    out.number(record.where.start().value());
    out.number(record.where.size().value());
    out.number(record.suppressed);
    if (record.source.segment())
        out.number(*record.source.segment());
    if (record.domain)
        out.number(*record.domain);
    if (record.pasid)
        out.number(*record.pasid);
    if (record.code)
        out.number(*record.code);
    if (record.time_ns)
        out.number(*record.time_ns);
}

[[nodiscard]] std::uint8_t fields_of(const DmaEvent& event) {
    return static_cast<std::uint8_t>(
        (event.range == IovaRange() ? 0 : Has::range) | (event.physical ? Has::physical : 0) |
        (event.count == 0 ? 0 : Has::count) | (event.record == Record() ? 0 : Has::record) |
        (event.group ? Has::group : 0) | (event.translated ? 0 : Has::passes_through));
}

} // namespace

class RecordingWriter::State {
  public:
    State(WriteBytes write, Symbolise symbolise) : write_(std::move(write)), symbolise_(symbolise) {
        for (const std::uint8_t each : recording::header)
            put(each);
    }

    [[nodiscard]] Result<void> add(const DmaEvent& event) {
        if (failure_)
            return std::unexpected(*failure_);
        std::size_t text_bytes = 0;
        for (const std::string_view each : {event.device, event.driver, event.call, event.task}) {
            if (each.size() > recording::most_text_bytes)
                return fail(ErrorCode::limit, "a text is too long for a recording",
                            {"bytes", each.size()}, {"most", recording::most_text_bytes});
            text_bytes += each.size();
        }
        if (event.stack.size() > recording::most_stack)
            return fail(ErrorCode::limit, "a stack is too deep for a recording",
                        {"addresses", event.stack.size()}, {"most", recording::most_stack});
        make_room(text_bytes, event.stack.size());
        add_event(event, number_of_site(event));
        return waiting_.size() < most_waiting_bytes ? Result<void>() : flush();
    }

    [[nodiscard]] Result<void> flush() {
        if (failure_)
            return std::unexpected(*failure_);
        if (waiting_.empty())
            return {};
        if (const auto written = write_(waiting_); !written) {
            failure_ = written.error();
            return written;
        }
        waiting_.clear();
        return {};
    }

    [[nodiscard]] std::uint64_t size() const { return size_; }

  private:
    void put(std::uint8_t byte) {
        waiting_.push_back(byte);
        check_.add(byte);
        ++size_;
    }

    /// Frames what `body_` holds.
    void end_record() {
        Encoder length;
        length.number(body_.bytes().size());
        for (const std::uint8_t each : length.bytes())
            put(each);
        for (const std::uint8_t each : body_.bytes())
            put(each);
        waiting_.push_back(check_.byte());
        ++size_;
        body_.clear();
    }

    void begin_record(Tag tag) { body_.number(static_cast<std::uint64_t>(tag)); }

    /// Empties the tables if the texts, the stack or the site of an event could exceed a limit.
    void make_room(std::size_t text_bytes, std::size_t addresses) {
        if (texts_.size() + 4 <= recording::most_texts &&
            text_bytes_ + text_bytes <= recording::most_texts_bytes &&
            stacks_.size() < recording::most_stacks &&
            addresses_ + addresses <= recording::most_stacks_addresses &&
            sites_.size() < recording::most_sites)
            return;
        begin_record(Tag::forget);
        end_record();
        texts_.clear();
        stacks_.clear();
        sites_.clear();
        text_bytes_ = 0;
        addresses_ = 0;
    }

    [[nodiscard]] std::uint32_t number_of_text(std::string_view text) {
        if (text.empty())
            return 0;
        if (const auto known = texts_.find(text); known != texts_.end())
            return known->second;
        begin_record(Tag::text);
        body_.text(text);
        end_record();
        text_bytes_ += text.size();
        const auto number = static_cast<std::uint32_t>(texts_.size() + 1);
        texts_.emplace(text, number);
        return number;
    }

    [[nodiscard]] std::uint32_t number_of_stack(StackView stack) {
        if (stack.empty())
            return 0;
        if (const auto known = stacks_.find(stack); known != stacks_.end())
            return known->second;
        for (const std::uintptr_t each : stack)
            add_symbol(each);
        begin_record(Tag::stack);
        std::uint64_t last = 0;
        body_.number(stack.size());
        for (const std::uintptr_t each : stack)
            body_.difference(each, last);
        end_record();
        addresses_ += stack.size();
        const auto number = static_cast<std::uint32_t>(stacks_.size() + 1);
        stacks_.emplace(std::vector(stack.begin(), stack.end()), number);
        return number;
    }

    /// Writes what `symbolise` knows of an address, at its first use: no frames if it hides the
    /// address.
    void add_symbol(std::uintptr_t address) {
        if (symbolised_.size() == recording::most_symbols || !symbolised_.insert(address).second)
            return;
        Encoder frames;
        std::size_t count = 0;
        std::size_t bytes = 0;
        bool is_unknown = false;
        const auto add_frame = [&](const StackFrame& frame) {
            if (frame.function.empty() && frame.file.empty() && frame.module.empty())
                is_unknown = true;
            if (is_unknown || count == recording::most_frames)
                return;
            ++count;
            bytes += recording::frame_bytes;
            for (const std::string_view each : {frame.function, frame.file, frame.module}) {
                frames.text(each.substr(0, recording::most_symbol_text_bytes));
                bytes += std::min(each.size(), recording::most_symbol_text_bytes);
            }
            frames.number(frame.line);
        };
        symbolise_(address, add_frame);
        if (is_unknown || symbol_bytes_ + bytes > recording::most_symbols_bytes)
            return;
        symbol_bytes_ += bytes;
        begin_record(Tag::symbol);
        body_.number(address);
        body_.number(count);
        for (const std::uint8_t each : frames.bytes())
            body_.byte(each);
        end_record();
    }

    [[nodiscard]] std::uint64_t number_of_site(const DmaEvent& event) {
        const Site site = {.kind = event.kind,
                           .has = fields_of(event),
                           .allows = event.allows,
                           .thread = event.thread,
                           .group = event.group.value_or(0),
                           .device = number_of_text(event.device),
                           .driver = number_of_text(event.driver),
                           .call = number_of_text(event.call),
                           .task = number_of_text(event.task),
                           .stack = number_of_stack(event.stack)};
        const auto [at, is_new] = sites_.try_emplace(site, sites_.size());
        if (is_new) {
            begin_record(Tag::site);
            body_.byte(static_cast<std::uint8_t>(site.kind));
            body_.byte(site.has);
            body_.byte(static_cast<std::uint8_t>(site.allows));
            for (const std::uint32_t each :
                 {site.thread, site.device, site.driver, site.call, site.task, site.stack})
                body_.number(each);
            if ((site.has & Has::group) != 0)
                body_.number(site.group);
            end_record();
        }
        return at->second;
    }

    void add_event(const DmaEvent& event, std::uint64_t site) {
        body_.number(recording::first_site + site);
        body_.difference(event.time_ns, last_time_);
        if (event.range != IovaRange())
            add_range(event.range);
        if (event.physical)
            body_.difference(*event.physical, last_physical_);
        if (event.count != 0)
            body_.number(event.count);
        if (event.record != Record())
            encode_record(body_, event.record);
        end_record();
    }

    void add_range(const IovaRange& range) {
        if (const auto known = pushed_.find(range); known != pushed_.end()) {
            body_.number(recent_.count() - known->second);
            return;
        }
        body_.number(0);
        body_.difference(range.start().value(), last_start_);
        body_.number(range.size().value());
        if (const IovaRange* const oldest = recent_.find(recording::RecentRanges::capacity))
            pushed_.erase(*oldest);
        pushed_.emplace(range, recent_.count());
        recent_.push(range);
    }

    WriteBytes write_;
    Symbolise symbolise_;
    std::optional<Error> failure_;
    std::vector<std::uint8_t> waiting_;
    std::uint64_t size_ = 0;
    recording::Check check_;
    Encoder body_;

    std::unordered_map<std::string, std::uint32_t, recording::Hash, std::equal_to<>> texts_;
    std::unordered_map<std::vector<std::uintptr_t>, std::uint32_t, recording::Hash,
                       recording::SameStack>
        stacks_;
    std::unordered_map<Site, std::uint64_t, recording::Hash> sites_;
    std::size_t text_bytes_ = 0;
    std::size_t addresses_ = 0; ///< of all stacks
    std::unordered_set<std::uintptr_t> symbolised_;
    std::size_t symbol_bytes_ = 0;

    std::uint64_t last_time_ = 0;
    std::uint64_t last_start_ = 0;
    std::uint64_t last_physical_ = 0;
    recording::RecentRanges recent_;
    /// The ranges of `recent_`, each with the number of ranges that were pushed before it.
    std::unordered_map<IovaRange, std::uint64_t, recording::Hash> pushed_;
};

RecordingWriter::RecordingWriter(WriteBytes write, Symbolise symbolise)
    : state_(std::make_unique<State>(std::move(write), symbolise)) {}

RecordingWriter::RecordingWriter(RecordingWriter&&) noexcept = default;
RecordingWriter& RecordingWriter::operator=(RecordingWriter&&) noexcept = default;
RecordingWriter::~RecordingWriter() = default;

Result<void> RecordingWriter::add(const DmaEvent& event) {
    return state_->add(event);
}

Result<void> RecordingWriter::flush() {
    return state_->flush();
}

std::uint64_t RecordingWriter::size() const {
    return state_->size();
}

} // namespace moat::fault
