// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/judge.hpp"

#include "moat/core/text.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/report.hpp"

#include <algorithm>
#include <cstring>

namespace moat::audit {

namespace {

using fault::Diagnosis;
using fault::Side;

[[nodiscard]] std::string bytes_text(std::uint64_t bytes) {
    return std::to_string(bytes) + (bytes == 1 ? " byte" : " bytes");
}

class Judge {
  public:
    Judge(const Observed& seen, const Past& past) : seen_(seen), past_(past) {}

    std::vector<Finding> decide() {
        for (const Inspected& each : seen_.kept)
            judge_canaries(each, seen_.kept_since);
        for (const Inspected& each : seen_.given)
            judge_canaries(each, seen_.about.number);
        for (const Inspected& each : seen_.retired)
            judge_retired(each);
        if (!seen_.faults.empty())
            prepare_diagnosis();
        for (const fault::Record& each : seen_.faults)
            judge_fault(each);
        judge_answer();
        return std::move(found_);
    }

  private:
    /// Most operations have no faults to diagnose.
    void prepare_diagnosis() {
        past_.history.catch_up();
        for (const auto all : {seen_.kept, seen_.given})
            for (const Inspected& each : all)
                living_.push_back(mapping_of(each.placed, seen_.guard));
        std::ranges::sort(living_, {}, [](const auto& each) { return each.range.start(); });
    }

    Finding& add(FindingKind kind, const Placed* buffer, Side side, std::uint64_t bytes) {
        Finding made{.kind = kind,
                     .operation = std::string(seen_.operation),
                     .about = seen_.about,
                     .first_case = seen_.about.number,
                     .side = side,
                     .bytes = bytes,
                     .answer = seen_.answer.value_or(Answer{})};
        if (buffer != nullptr) {
            made.buffer = buffer->label;
            made.range = buffer->range;
        }
        return found_.emplace_back(std::move(made));
    }

    void judge_canaries(const Inspected& inspected, std::uint64_t since) {
        const auto& [buffer, changed] = inspected;
        if (changed.around() + changed.decoy == 0)
            return;
        const std::string whose = " \"" + std::string(buffer.label) + "\" of " +
                                  bytes_text(buffer.range.size().value()) + " at " +
                                  hexadecimal(buffer.range.start().value());
        const auto outside = [&](Side side, std::uint64_t bytes, std::string_view where) {
            if (bytes == 0)
                return;
            Finding& made = add(FindingKind::wrote_outside, &buffer, side, bytes);
            made.first_case = std::min(since, made.first_case);
            made.report = "canaries: " + bytes_text(bytes) + " changed " + std::string(where) +
                          whose + ", in its page\n";
        };
        outside(Side::left, changed.before, "before");
        outside(Side::right, changed.after, "past the end of");
        if (changed.decoy == 0)
            return;
        Finding& made = add(FindingKind::bypasses_iommu, &buffer, Side::inside, changed.decoy);
        made.first_case = std::min(since, made.first_case);
        made.report = "canaries: " + bytes_text(changed.decoy) +
                      " changed in unmapped memory at the same physical address as the IOVA of" +
                      whose + "\n";
    }

    void judge_retired(const Inspected& each) {
        const Placed& buffer = each.placed;
        if (each.changed.decoy != 0)
            judge_canaries({buffer, {.decoy = each.changed.decoy}}, buffer.case_number);
        const std::uint64_t bytes = each.changed.inside + each.changed.around();
        if (bytes == 0)
            return;
        Finding& made = add(FindingKind::touched_after_completion, &buffer, Side::inside, bytes);
        made.first_case = std::min(buffer.case_number, seen_.about.number);
        made.report = "canaries: " + bytes_text(bytes) + " changed in \"" +
                      std::string(buffer.label) + "\" at " +
                      hexadecimal(buffer.range.start().value()) +
                      " after it was unmapped, without a fault\n";
    }

    void judge_fault(const fault::Record& record) {
        const bool ours = record.source == fault::Source::requester(seen_.requester) ||
                          (record.source.kind() == fault::Source::Kind::pci &&
                           record.source.id() == seen_.requester);
        const Diagnosis diagnosis =
            fault::diagnose(fault::SortedMappings(living_), past_.history, record);
        switch (ours ? diagnosis.kind : fault::Kind::no_access) {
        case fault::Kind::out_of_bounds_right:
        case fault::Kind::out_of_bounds_left:
        case fault::Kind::crossing:
            return outside(diagnosis);
        case fault::Kind::permission:
            // The buffer was unmapped. Some IOMMUs report a missing leaf for one that forbids the
            // access, and others not the kind of the access.
            if ((record.reason == fault::Reason::not_present ||
                 record.access == fault::Access::unknown) &&
                is_given(diagnosis.mapping->range))
                return after(diagnosis, diagnosis.mapping->range);
            return outside(diagnosis);
        case fault::Kind::use_after_unmap:
            return after(diagnosis, diagnosis.past->mapping.range);
        case fault::Kind::mapped_and_allowed:
            // Faults are taken after the operation's buffers are unmapped; the driver's own stay
            // mapped.
            if (is_given(diagnosis.mapping->range))
                return after(diagnosis, diagnosis.mapping->range);
            break;
        default:
            break;
        }
        const Placed* const misread = ours ? find_misread(record.where) : nullptr;
        if (misread == nullptr)
            return report(add(FindingKind::fault_without_access, nullptr, Side::inside, 0),
                          diagnosis);
        Finding& made = add(FindingKind::bypasses_iommu, misread, Side::inside, 0);
        made.report = "the device used an address from unmapped memory at the same physical "
                      "address as the IOVA of \"" +
                      std::string(misread->label) + "\"\n";
        report(made, diagnosis);
    }

    /// The buffer in whose decoy a pointer to this page lies: the device read it by physical
    /// address, and took a canary for an address.
    [[nodiscard]] const Placed* find_misread(IovaRange where) const {
        for (const auto all : {seen_.kept, seen_.given})
            for (const Inspected& each : all)
                if (points_to(each.placed, where.start()))
                    return &each.placed;
        return nullptr;
    }

    [[nodiscard]] static bool points_to(const Placed& buffer, Iova target) {
        constexpr unsigned page_lg2 = 12;
        if (buffer.decoy.size() < buffer.end())
            return false;
        std::uint64_t pointer = 0;
        for (std::size_t at = buffer.offset(); at + sizeof pointer <= buffer.end();
             at += sizeof pointer) {
            std::memcpy(&pointer, buffer.decoy.data() + at, sizeof pointer);
            if (pointer >> page_lg2 == target.value() >> page_lg2)
                return true;
        }
        return false;
    }

    [[nodiscard]] bool is_given(IovaRange range) const {
        return std::ranges::any_of(
            seen_.given, [&](const Inspected& each) { return each.placed.range == range; });
    }

    [[nodiscard]] const Placed* find(IovaRange range) const {
        for (const auto all : {seen_.kept, seen_.given})
            for (const Inspected& each : all)
                if (each.placed.range == range)
                    return &each.placed;
        const auto found = std::ranges::find(past_.retired, range, &Placed::range);
        return found == past_.retired.end() ? nullptr : &*found;
    }

    static void report(Finding& made, const Diagnosis& diagnosis) {
        made.record = diagnosis.record;
        made.known = diagnosis.record.precision == fault::Precision::exact ? Known::exactly
                                                                           : Known::at_least;
        made.report += fault::text_report(diagnosis);
    }

    /// A report without the kind of access, as a virtio-iommu's may be: by what the buffer is for.
    [[nodiscard]] static bool wrote(const fault::Record& record, const Placed* buffer) {
        if (record.access == fault::Access::unknown)
            return buffer != nullptr && buffer->direction == Direction::from_device;
        return record.access == fault::Access::write;
    }

    /// Merges with canaries of the same side, which may have caught the first bytes.
    void outside(const Diagnosis& diagnosis) {
        const Placed* const buffer = find(diagnosis.mapping->range);
        const FindingKind kind = wrote(diagnosis.record, buffer) ? FindingKind::wrote_outside
                                                                 : FindingKind::read_outside;
        std::uint64_t bytes = diagnosis.bytes_outside;
        if (diagnosis.kind == fault::Kind::permission &&
            diagnosis.record.precision == fault::Precision::exact)
            bytes = diagnosis.record.where.size().value();
        const auto same = std::ranges::find_if(found_, [&](const Finding& each) {
            return each.kind == kind && each.range == diagnosis.mapping->range &&
                   each.side == diagnosis.side;
        });
        Finding& made = same == found_.end() ? add(kind, buffer, diagnosis.side, 0) : *same;
        made.bytes += bytes;
        report(made, diagnosis);
        first_blocked_ = std::min(made.first_case, first_blocked_.value_or(made.first_case));
    }

    void after(const Diagnosis& diagnosis, IovaRange range) {
        const Placed* const buffer = find(range);
        const bool exact = diagnosis.record.precision == fault::Precision::exact;
        Finding& made = add(FindingKind::touched_after_completion, buffer, diagnosis.side,
                            exact ? diagnosis.record.where.size().value() : 0);
        if (buffer != nullptr)
            made.first_case = std::min(buffer->case_number, made.first_case);
        else if (made.first_case != 0)
            --made.first_case; // the last operation of a previous driver
        if (buffer == nullptr && diagnosis.past)
            made.buffer = diagnosis.past->mapping.label;
        report(made, diagnosis);
    }

    void judge_answer() {
        if (!seen_.answer)
            return;
        const Placed* const data = seen_.given.empty() ? nullptr : &seen_.given.back().placed;
        if (seen_.answer->verdict == Verdict::no_answer)
            add(FindingKind::hang, nullptr, Side::inside, 0).report =
                "the device did not answer; its status is " + hexadecimal(seen_.answer->code) +
                "\n";
        if (seen_.answer->verdict != Verdict::success || data == nullptr)
            return;
        if (first_blocked_) {
            // Another finding names the buffer beside which the access was blocked.
            Finding& made = add(FindingKind::success_though_blocked, data, Side::inside, 0);
            made.first_case = *first_blocked_;
            made.report = "the device reported success for \"" + std::string(seen_.operation) +
                          "\", but the IOMMU blocked one of its accesses\n";
        }
        // A written byte may equal the canary by chance.
        constexpr std::uint64_t least = 4;
        if (found_.empty() && seen_.unwritten >= least && data->direction == Direction::from_device)
            add(FindingKind::left_unwritten, data, Side::inside, seen_.unwritten).report =
                "canaries: the last " + bytes_text(seen_.unwritten) + " of \"" +
                std::string(data->label) + "\" were not written\n";
        if (found_.empty() && seen_.wrong)
            judge_contents(*seen_.wrong, *data);
    }

    void judge_contents(const WrongData& wrong, const Placed& data) {
        Finding& made = add(FindingKind::wrong_data, &data, Side::inside, wrong.bytes);
        made.first_case = std::min(wrong.first_case, made.first_case);
        made.contents = wrong;
        const auto named = [](const Origin& origin) {
            return "case " + std::to_string(origin.case_number) + " stored at byte " +
                   hexadecimal(origin.at) + " of the medium";
        };
        made.report = "contents: " + bytes_text(wrong.bytes) + " of \"" + std::string(data.label) +
                      "\" are wrong, from byte " + std::to_string(wrong.offset) + " on: not what " +
                      named(wrong.expected) +
                      (wrong.origin ? ", but what " + named(*wrong.origin) : "") + "\n";
    }

    const Observed& seen_;
    const Past& past_;
    std::vector<fault::Mapping> living_;
    std::vector<Finding> found_;
    std::optional<std::uint64_t> first_blocked_; ///< the first case that shows a blocked access
};

} // namespace

fault::Mapping mapping_of(const Placed& placed, ByteCount guard) {
    return {.range = placed.range,
            .guard_before = guard,
            .guard_after = guard,
            .allows = dma::allows_of(placed.direction),
            .label = placed.label};
}

std::vector<Finding> judge(const Observed& seen, const Past& past) {
    return Judge(seen, past).decide();
}

} // namespace moat::audit
