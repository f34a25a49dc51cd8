// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Reads recordings, which may be cut, growing or hostile.
#include "recording.hpp"
#include "recording_format.hpp"

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace moat::fault {

namespace recording {

struct SymbolFrame {
    std::string function;
    std::string file;
    std::string module;
    unsigned line = 0;
};

} // namespace recording

namespace {

using recording::BodyCursor;
using recording::Has;
using recording::RecordHas;
using recording::Site;
using recording::Tag;

static_assert(sizeof(std::uintptr_t) == 8, "addresses of stacks have 64 bits");

constexpr std::size_t buffer_bytes = 2 * recording::most_body_bytes;
constexpr std::uint64_t most_u32 = std::numeric_limits<std::uint32_t>::max();

template <class Enum>
[[nodiscard]] Enum choice(BodyCursor& in, Enum last) {
    return static_cast<Enum>(in.number(static_cast<std::uint64_t>(last)));
}

[[nodiscard]] std::uint32_t small_number(BodyCursor& in) {
    return static_cast<std::uint32_t>(in.number(most_u32));
}

/// Return: a range, or nothing if it ends past 2^64.
[[nodiscard]] std::optional<IovaRange> range_of(std::uint64_t start, std::uint64_t size) {
    const auto range = IovaRange::make(Iova(start), ByteCount(size));
    return range ? std::optional(*range) : std::nullopt;
}

[[nodiscard]] std::optional<Source> decode_source(Source::Kind kind, std::uint64_t id,
                                                  std::optional<std::uint16_t> segment) {
    const auto number = static_cast<std::uint32_t>(id);
    if (kind == Source::Kind::pci)
        return id <= 0xffff
                   ? std::optional(Source::requester(static_cast<std::uint16_t>(id), segment))
                   : std::nullopt;
    if (segment)
        return std::nullopt;
    switch (kind) {
    case Source::Kind::stream:
        return Source::stream(number);
    case Source::Kind::endpoint:
        return Source::endpoint(number);
    case Source::Kind::device_id:
        return Source::device_id(number);
    default:
        return id == 0 ? std::optional(Source()) : std::nullopt;
    }
}

[[nodiscard]] std::optional<Record> decode_record(BodyCursor& in) {
    const auto has = static_cast<std::uint8_t>(in.number(RecordHas::all));
    const auto kind = choice(in, Source::Kind::device_id);
    const std::uint64_t id = small_number(in);
    Record record;
    record.access = choice(in, Access::execute);
    record.precision = choice(in, Precision::page);
    record.reason = choice(in, Reason::events_lost);
    const std::uint64_t start = in.number();
    const std::uint64_t size = in.number();
    record.suppressed = in.number();
    std::optional<std::uint16_t> segment;
    if ((has & RecordHas::segment) != 0)
        segment = static_cast<std::uint16_t>(in.number(0xffff));
    if ((has & RecordHas::domain) != 0)
        record.domain = small_number(in);
    if ((has & RecordHas::pasid) != 0)
        record.pasid = small_number(in);
    if ((has & RecordHas::code) != 0)
        record.code = in.number();
    if ((has & RecordHas::time) != 0)
        record.time_ns = in.number();
    const auto where = range_of(start, size);
    const auto source = decode_source(kind, id, segment);
    if (!where || !source)
        return std::nullopt;
    record.where = *where;
    record.source = *source;
    return record;
}

} // namespace

class RecordingReader::State {
  public:
    explicit State(ReadBytes read) : read_(std::move(read)) { buffer_.reserve(buffer_bytes); }

    [[nodiscard]] Result<const DmaEvent*> next() {
        while (!failure_) {
            const auto body = next_body();
            if (!body)
                failure_ = body.error();
            else if (body->empty())
                return nullptr;
            else if (const auto understood = understand(*body); !understood)
                failure_ = understood.error();
            else {
                offset_ += record_bytes_;
                at_ += record_bytes_;
                if (*understood)
                    return &event_;
            }
        }
        return std::unexpected(*failure_);
    }

    [[nodiscard]] std::uint64_t offset() const { return offset_; }

    [[nodiscard]] std::size_t incomplete_bytes() const { return buffer_.size() - at_; }

    void symbolise(std::uintptr_t address, FrameSink sink) const {
        const auto known = symbols_.find(address);
        if (known == symbols_.end())
            return sink({.address = address});
        for (const recording::SymbolFrame& each : known->second)
            sink({.address = address,
                  .function = each.function,
                  .file = each.file,
                  .line = each.line,
                  .module = each.module});
    }

  private:
    /// Return: the bytes from `at_` on, at least `wanted` if the file has so many.
    [[nodiscard]] Result<std::span<const std::uint8_t>> look(std::size_t wanted) {
        while (buffer_.size() - at_ < wanted) {
            buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(at_));
            at_ = 0;
            const std::size_t had = buffer_.size();
            buffer_.resize(buffer_bytes);
            const auto read = read_(std::span(buffer_).subspan(had));
            buffer_.resize(had + (read ? *read : 0));
            if (!read)
                return std::unexpected(read.error());
            if (*read == 0)
                break;
        }
        return std::span<const std::uint8_t>(buffer_).subspan(at_);
    }

    [[nodiscard]] Result<bool> pass_header() {
        MOAT_LET(const auto bytes, look(recording::header.size()));
        constexpr std::size_t version = recording::header.size() - 1;
        for (std::size_t index = 0; index != std::min(bytes.size(), version); ++index)
            if (bytes[index] != recording::header[index])
                return fail(ErrorCode::mismatch, "this is no recording of moat", {"offset", index},
                            {"value", bytes[index]});
        if (bytes.size() <= version)
            return false;
        if (bytes[version] != recording::header[version])
            return fail(ErrorCode::unsupported, "a newer moat wrote this recording",
                        {"version", bytes[version]}, {"supported", recording::header[version]});
        for (const std::uint8_t each : recording::header)
            check_.add(each);
        at_ += recording::header.size();
        offset_ = recording::header.size();
        return true;
    }

    /// Return: the body of the next record, with the right check byte; empty at the end.
    [[nodiscard]] Result<std::span<const std::uint8_t>> next_body() {
        constexpr std::size_t most_length_bytes = 3;
        if (offset_ == 0)
            if (const auto passed = pass_header(); !passed || !*passed)
                return passed ? Result<std::span<const std::uint8_t>>({})
                              : std::unexpected(passed.error());
        auto bytes = look(most_length_bytes);
        if (!bytes)
            return std::unexpected(bytes.error());
        std::size_t length_bytes = 0;
        std::size_t length = 0;
        do {
            if (length_bytes == std::min(bytes->size(), most_length_bytes))
                return length_bytes != most_length_bytes ? Result<std::span<const std::uint8_t>>({})
                                                         : bad_length(length);
            length |= static_cast<std::size_t>((*bytes)[length_bytes] & 0x7f) << 7 * length_bytes;
        } while (((*bytes)[length_bytes++] & 0x80) != 0);
        if (length == 0 || length > recording::most_body_bytes)
            return bad_length(length);
        record_bytes_ = length_bytes + length + 1;
        if (bytes = look(record_bytes_); !bytes)
            return std::unexpected(bytes.error());
        if (bytes->size() < record_bytes_)
            return std::span<const std::uint8_t>();
        for (const std::uint8_t each : bytes->first(record_bytes_ - 1))
            check_.add(each);
        if ((*bytes)[record_bytes_ - 1] != check_.byte())
            return fail(ErrorCode::mismatch, "a record's check byte is wrong", {"offset", offset_},
                        {"value", (*bytes)[record_bytes_ - 1]}, {"computed", check_.byte()});
        return bytes->subspan(length_bytes, length);
    }

    [[nodiscard]] std::unexpected<Error> bad_length(std::size_t length) const {
        return fail(ErrorCode::mismatch, "a record has an impossible length", {"offset", offset_},
                    {"value", length}, {"most", recording::most_body_bytes});
    }

    [[nodiscard]] std::unexpected<Error> bad_field(const char* sentence,
                                                   std::uint64_t value) const {
        return fail(ErrorCode::mismatch, sentence, {"offset", offset_}, {"value", value});
    }

    [[nodiscard]] std::unexpected<Error> too_many(const char* sentence, std::size_t most) const {
        return fail(ErrorCode::limit, sentence, {"offset", offset_}, {"most", most});
    }

    /// Return: whether `event_` is a new event.
    [[nodiscard]] Result<bool> understand(std::span<const std::uint8_t> body) {
        BodyCursor in(body);
        const std::uint64_t tag = in.number();
        if (tag >= recording::first_site)
            return read_event(in, tag - recording::first_site);
        const auto defined = [&]() -> Result<void> {
            switch (static_cast<Tag>(tag)) {
            case Tag::text:
                return read_text(in);
            case Tag::symbol:
                return read_symbol(in);
            case Tag::stack:
                return read_stack(in);
            case Tag::site:
                return read_site(in);
            case Tag::forget:
                return forget(in);
            }
            return bad_field("a record has an unknown tag", tag);
        }();
        return defined ? Result<bool>(false) : std::unexpected(defined.error());
    }

    [[nodiscard]] Result<void> read_text(BodyCursor& in) {
        const std::string_view text = in.text(recording::most_text_bytes);
        if (in.failed() || text.empty())
            return bad_field("a text is malformed", texts_.size() + 1);
        if (texts_.size() == recording::most_texts ||
            text_bytes_ + text.size() > recording::most_texts_bytes)
            return too_many("there are too many texts", recording::most_texts);
        text_bytes_ += text.size();
        texts_.emplace_back(text);
        return {};
    }

    [[nodiscard]] Result<void> read_symbol(BodyCursor& in) {
        const std::uint64_t address = in.number();
        std::vector<recording::SymbolFrame> frames(in.number(recording::most_frames));
        for (recording::SymbolFrame& each : frames) {
            symbol_bytes_ += recording::frame_bytes;
            for (std::string* const part : {&each.function, &each.file, &each.module}) {
                *part = in.text(recording::most_symbol_text_bytes);
                symbol_bytes_ += part->size();
            }
            each.line = small_number(in);
        }
        if (in.failed())
            return bad_field("a symbol is malformed", address);
        if (symbols_.size() == recording::most_symbols ||
            symbol_bytes_ > recording::most_symbols_bytes)
            return too_many("there are too many symbols", recording::most_symbols);
        symbols_.insert_or_assign(address, std::move(frames));
        return {};
    }

    [[nodiscard]] Result<void> read_stack(BodyCursor& in) {
        const std::uint64_t depth = in.number(recording::most_stack);
        if (stacks_.size() == recording::most_stacks ||
            addresses_.size() + depth > recording::most_stacks_addresses)
            return too_many("there are too many stacks", recording::most_stacks);
        const std::size_t begin = addresses_.size();
        std::uint64_t last = 0;
        for (std::uint64_t left = depth; left != 0; --left)
            addresses_.push_back(in.difference(last));
        if (in.failed() || depth == 0)
            return bad_field("a stack is malformed", stacks_.size() + 1);
        stacks_.emplace_back(begin, depth);
        return {};
    }

    [[nodiscard]] Result<void> read_site(BodyCursor& in) {
        Site site;
        site.kind = choice(in, DmaEvent::Kind::note);
        site.has = static_cast<std::uint8_t>(in.number(Has::all));
        site.allows = choice(in, Allows::read_write);
        site.thread = small_number(in);
        for (std::uint32_t* const text : {&site.device, &site.driver, &site.call, &site.task})
            *text = static_cast<std::uint32_t>(in.number(texts_.size()));
        site.stack = static_cast<std::uint32_t>(in.number(stacks_.size()));
        if ((site.has & Has::group) != 0)
            site.group = small_number(in);
        if (in.failed())
            return bad_field("a site is malformed", sites_.size());
        if (sites_.size() == recording::most_sites)
            return too_many("there are too many sites", recording::most_sites);
        sites_.push_back(site);
        return {};
    }

    [[nodiscard]] Result<void> forget(BodyCursor& in) {
        if (in.failed())
            return bad_field("a forget record has a body", in.left());
        texts_.clear();
        stacks_.clear();
        sites_.clear();
        addresses_.clear();
        text_bytes_ = 0;
        return {};
    }

    [[nodiscard]] std::string_view text(std::uint32_t number) const {
        return number == 0 ? std::string_view() : std::string_view(texts_[number - 1]);
    }

    [[nodiscard]] StackView stack(std::uint32_t number) const {
        if (number == 0)
            return {};
        const auto& [begin, depth] = stacks_[number - 1];
        return StackView(addresses_).subspan(begin, depth);
    }

    [[nodiscard]] Result<bool> read_event(BodyCursor& in, std::uint64_t number) {
        if (number >= sites_.size())
            return bad_field("an event has an unknown site", number);
        const Site& site = sites_[number];
        event_ = {.kind = site.kind,
                  .time_ns = in.difference(last_time_),
                  .thread = site.thread,
                  .task = text(site.task),
                  .device = text(site.device),
                  .call = text(site.call),
                  .allows = site.allows,
                  .stack = stack(site.stack),
                  .driver = text(site.driver),
                  .translated = (site.has & Has::passes_through) == 0};
        if ((site.has & Has::group) != 0)
            event_.group = site.group;
        bool good = (site.has & Has::range) == 0 || read_range(in);
        if ((site.has & Has::physical) != 0)
            event_.physical = in.difference(last_physical_);
        if ((site.has & Has::count) != 0)
            event_.count = in.number();
        if ((site.has & Has::record) != 0) {
            const auto record = decode_record(in);
            good = good && record;
            event_.record = record.value_or(Record());
        }
        if (!good || in.failed())
            return bad_field("an event is malformed", number);
        return true;
    }

    [[nodiscard]] bool read_range(BodyCursor& in) {
        if (const std::uint64_t back = in.number(); back != 0) {
            const IovaRange* const known = recent_.find(back);
            if (known != nullptr)
                event_.range = *known;
            return known != nullptr;
        }
        const std::uint64_t start = in.difference(last_start_);
        const auto range = range_of(start, in.number());
        if (!range)
            return false;
        event_.range = *range;
        recent_.push(*range);
        return true;
    }

    ReadBytes read_;
    std::optional<Error> failure_;
    std::vector<std::uint8_t> buffer_;
    std::size_t at_ = 0;           ///< the next record in `buffer_`
    std::uint64_t offset_ = 0;     ///< the next record in the file
    std::size_t record_bytes_ = 0; ///< of the record that `next_body` found
    recording::Check check_;

    std::deque<std::string> texts_;
    std::vector<std::pair<std::size_t, std::size_t>> stacks_; ///< first of `addresses_`, depth
    std::vector<std::uintptr_t> addresses_;
    std::vector<Site> sites_;
    std::size_t text_bytes_ = 0;
    std::unordered_map<std::uintptr_t, std::vector<recording::SymbolFrame>> symbols_;
    std::size_t symbol_bytes_ = 0;

    std::uint64_t last_time_ = 0;
    std::uint64_t last_start_ = 0;
    std::uint64_t last_physical_ = 0;
    recording::RecentRanges recent_;
    DmaEvent event_;
};

RecordingReader::RecordingReader(ReadBytes read)
    : state_(std::make_unique<State>(std::move(read))) {}

RecordingReader::RecordingReader(RecordingReader&&) noexcept = default;
RecordingReader& RecordingReader::operator=(RecordingReader&&) noexcept = default;
RecordingReader::~RecordingReader() = default;

Result<const DmaEvent*> RecordingReader::next() {
    return state_->next();
}

std::uint64_t RecordingReader::offset() const {
    return state_->offset();
}

std::size_t RecordingReader::incomplete_bytes() const {
    return state_->incomplete_bytes();
}

void RecordingReader::symbolise(std::uintptr_t address, FrameSink sink) const {
    state_->symbolise(address, sink);
}

} // namespace moat::fault
