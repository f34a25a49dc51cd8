// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/audit.hpp"

#include "moat/core/text.hpp"

#include "audit/contents.hpp"
#include "audit/judge.hpp"

#include <algorithm>
#include <map>
#include <tuple>

namespace moat::audit {

namespace {

constexpr std::size_t remembered = 4096;
/// Between complete inspections of the memory around a driver's queues.
constexpr std::uint64_t cases_between_looks = 16;
/// The case number of the driver's own buffers: later than every case.
constexpr std::uint64_t of_no_case = ~std::uint64_t{0};

/// The findings of a device over all sessions, and how close its buffers came to guards.
class Ledger {
  public:
    Ledger(const AuditOptions& options, DeviceReport& report)
        : options_(options), report_(report) {}

    void note(std::vector<Finding> findings) {
        for (Finding& each : findings) {
            ++report_.tally.findings;
            if (options_.found)
                options_.found(each);
            const auto key = std::tuple(each.kind, each.operation, each.buffer, each.side);
            if (const auto known = places_.find(key); known != places_.end()) {
                ++report_.findings[known->second].times;
                continue;
            }
            places_.emplace(key, report_.findings.size());
            report_.findings.push_back(std::move(each));
        }
    }

    void note(const Placed& placed) {
        const std::uint64_t before = placed.offset();
        const std::uint64_t after = placed.memory.size() - before - placed.range.size().value();
        const auto found = std::ranges::find(report_.blind, placed.label, &Blind::label);
        if (found == report_.blind.end()) {
            report_.blind.push_back({std::string(placed.label), before, after});
            return;
        }
        found->before = std::min(found->before, before);
        found->after = std::min(found->after, after);
    }

    [[nodiscard]] Tally& tally() { return report_.tally; }

  private:
    using Key = std::tuple<FindingKind, std::string, std::string, fault::Side>;

    const AuditOptions& options_;
    DeviceReport& report_;
    std::map<Key, std::size_t> places_;
};

/// The lifetime of a driver, with its buffers at one end of their pages.
class Session final : private BufferSource {
  public:
    Session(machine::Machine& machine, machine::Function& function, Arena& arena,
            const AuditOptions& options, Ledger& ledger, fault::History& history,
            Contents& contents, Placement placement)
        : machine_(machine), function_(function), arena_(arena), options_(options), ledger_(ledger),
          history_(history), contents_(contents), placement_(placement) {}

    ~Session() {
        driver_.reset();
        for (const auto* all : {&kept_, &only_at_start_})
            for (const auto& [placed, _] : *all) {
                (void)arena_.unmap(placed);
                arena_.release(placed);
            }
        arena_.start_over();
    }

    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    Result<void> start() {
        MOAT_LET(driver_, options_.probe({machine_, function_, *this}));
        contents_.begin(driver_->medium());
        ++ledger_.tally().sessions;
        for (const auto& [placed, _] : only_at_start_) {
            MOAT_TRY(arena_.unmap(placed));
            arena_.retire(placed, Arena::look(placed));
            note_past(placed);
        }
        only_at_start_.clear();
        return observe({.operation = "start"});
    }

    [[nodiscard]] const Driver& driver() const { return *driver_; }

    /// Return: whether the driver can continue. Errors: the machine's.
    Result<bool> run(const Case& about);

    /// Lets the device run, then inspects everything once more.
    Result<void> finish(const Case& last) {
        settle(options_.last_settle);
        const std::uint64_t since = look_at_kept(last, Look::everywhere);
        retired_.clear();
        arena_.look_at_all(retired_);
        return observe(
            {.operation = "end", .about = last, .kept_since = since, .retired = retired_});
    }

  private:
    [[nodiscard]] Result<Buffer> obtain(const Need& need) override {
        MOAT_LET(const Placed placed, place(need, Life::driver, of_no_case));
        (need.use == Use::always ? kept_ : only_at_start_).push_back({placed});
        return Buffer{placed.range.start(), placed.bytes()};
    }

    Result<Placed> place(const Need& need, Life life, std::uint64_t case_number) {
        MOAT_LET(const Placed placed, arena_.place(need, placement_, life, case_number));
        ledger_.note(placed);
        return placed;
    }

    enum class Look : std::uint8_t { nearby, everywhere };

    Result<void> place_all(const Case& about, Request& request);
    std::uint64_t look_at_kept(const Case& about, Look how);
    std::uint64_t look_at_buffers(const Case& about);
    Result<void> take_faults();
    Result<void> observe(Observed seen);

    void note_past(const Placed& placed) { history_.note(mapping_of(placed, arena_.guard()), {}); }

    void report_lives(std::string_view operation) {
        for (; reported_ != kept_.size(); ++reported_)
            options_.lived({kept_[reported_].placed, "start", machine_.now(), std::nullopt});
        for (const Inspected& each : given_)
            options_.lived({each.placed, operation, placed_at_, machine_.now()});
    }

    void settle(std::chrono::nanoseconds longest) {
        auto never = [] { return false; };
        (void)machine_.wait_until(never, longest);
    }

    void count(Phase phase) {
        if (!options_.round_trips)
            return;
        const std::uint64_t now = options_.round_trips();
        ledger_.tally().round_trips[static_cast<std::size_t>(phase)] += now - counted_;
        counted_ = now;
    }

    machine::Machine& machine_;
    machine::Function& function_;
    Arena& arena_;
    const AuditOptions& options_;
    Ledger& ledger_;
    fault::History& history_;
    Contents& contents_;
    const Placement placement_;
    std::unique_ptr<Driver> driver_;
    std::vector<Inspected> kept_;
    std::vector<Inspected> only_at_start_;
    std::size_t reported_ = 0; ///< how many of `kept_` were reported
    std::uint64_t counted_ = 0;
    /// The first case since the last complete inspection around the driver's buffers.
    std::optional<std::uint64_t> not_looked_since_;
    std::chrono::nanoseconds placed_at_{};
    // Of the current operation; members so that their memory is reused.
    std::vector<Inspected> given_;     ///< its lists, then its data
    std::vector<Buffer> list_buffers_; ///< of its lists
    std::vector<Inspected> retired_;
    std::vector<fault::Record> faults_;
};

/// Places the data first: its address determines which lists are needed.
Result<void> Session::place_all(const Case& about, Request& request) {
    const Operation& operation = driver_->operations()[about.operation];
    given_.clear();
    list_buffers_.clear();
    arena_.begin_operation();
    if (about.length == ByteCount(0))
        return {};
    MOAT_LET(const Placed data, place({.what = "data",
                                       .direction = operation.direction,
                                       .size = about.length,
                                       .alignment_lg2 = operation.alignment_lg2},
                                      Life::operation, about.number));
    request.data = data.range.start();
    if (operation.direction == Direction::to_device)
        Contents::fill(data.bytes(), driver_->medium(), about);
    for (const Need& need : driver_->lists_for(request)) {
        MOAT_LET(const Placed list, place(need, Life::operation, about.number));
        given_.push_back({list});
        list_buffers_.push_back({list.range.start(), list.bytes()});
    }
    given_.push_back({data});
    request.lists = list_buffers_;
    return {};
}

Result<bool> Session::run(const Case& about) {
    const Operation& operation = driver_->operations()[about.operation];
    Request request{.operation = about.operation,
                    .data = {},
                    .length = about.length,
                    .position = about.position,
                    .lists = {}};
    if (options_.round_trips)
        counted_ = options_.round_trips();
    MOAT_TRY(place_all(about, request));
    placed_at_ = machine_.now();
    count(Phase::place);
    const auto answer = driver_->run(request);
    count(Phase::run);
    if (!answer && !machine_.health())
        return std::unexpected(answer.error());
    const ByteCount fills = std::min(operation.fills, about.length);
    const bool should_be_written = answer && answer->verdict == Verdict::success &&
                                   operation.direction == Direction::from_device && !given_.empty();
    std::uint64_t unwritten = 0;
    std::uint64_t kept_since = 0;
    std::optional<WrongData> wrong;
    {
        // The CPU inspects memory while the machine invalidates.
        auto look = [&] {
            kept_since = look_at_buffers(about);
            if (!should_be_written)
                return;
            const Placed& data = given_.back().placed;
            unwritten = Arena::unwritten_at_end(data, fills);
            if (operation.content == Content::loads)
                wrong =
                    contents_.compare(data.bytes().first(about.length.value() - unwritten), about);
        };
        const machine::Meanwhile meanwhile(machine_, look);
        for (const Inspected& each : given_)
            MOAT_TRY(arena_.unmap(each.placed));
    }
    count(Phase::unmap);
    auto retire = [&] {
        for (const Inspected& each : given_)
            arena_.retire(each.placed, each.changed);
    };
    const machine::Meanwhile meanwhile(machine_, retire);
    if (options_.settle != std::chrono::nanoseconds())
        settle(options_.settle);
    Tally& tally = ledger_.tally();
    ++tally.cases;
    tally.bytes += about.length.value();
    // The driver got no valid answer from its device.
    const Answer said = answer.value_or(Answer{});
    tally.refused += said.verdict == Verdict::failure ? 1 : 0;
    const std::uint64_t findings = tally.findings;
    MOAT_TRY(observe({.operation = operation.name,
                      .about = about,
                      .answer = said,
                      .fills = fills,
                      .given = given_,
                      .unwritten = unwritten,
                      .wrong = wrong,
                      .kept_since = kept_since,
                      .retired = retired_}));
    if (operation.content == Content::stores)
        contents_.note(about, said.verdict == Verdict::success && tally.findings == findings);
    return answer.has_value();
}

Result<void> Session::take_faults() {
    faults_.clear();
    auto keep = [&](fault::Record record) {
        record.time_ns.reset(); // the reporter's clock differs between runs
        faults_.push_back(record);
    };
    MOAT_TRY(machine_.take_faults(keep));
    machine_.finish_meanwhile(); // where no answer had to be awaited
    return {};
}

/// Return: the first case that may have caused the changes.
std::uint64_t Session::look_at_kept(const Case& about, Look how) {
    for (auto& [placed, changed] : kept_) {
        changed = how == Look::nearby ? Arena::glance(placed) : Arena::look(placed);
        if (changed.around() != 0)
            Arena::restore_around(placed);
    }
    if (how == Look::nearby)
        return about.number;
    return std::exchange(not_looked_since_, about.number + 1).value_or(about.number);
}

/// Inspects live buffers and the last retired one. Memory around queues is large and seldom
/// changes.
std::uint64_t Session::look_at_buffers(const Case& about) {
    if (!not_looked_since_)
        not_looked_since_ = about.number;
    const bool is_due = about.number - *not_looked_since_ + 1 >= cases_between_looks;
    const std::uint64_t since = look_at_kept(about, is_due ? Look::everywhere : Look::nearby);
    for (Inspected& each : given_)
        each.changed = Arena::look_at_ended(each.placed);
    retired_.clear();
    arena_.glance_at_last(retired_);
    return since;
}

Result<void> Session::observe(Observed seen) {
    MOAT_TRY(take_faults());
    if (seen.answer) // absent at the start and the end
        count(Phase::faults);
    if (options_.lived)
        report_lives(seen.operation);
    seen.requester = function_.info().address.requester();
    seen.guard = arena_.guard();
    seen.kept = kept_;
    seen.faults = faults_;
    ledger_.note(judge(seen, {history_, arena_.retired()}));
    for (const Inspected& each : given_)
        note_past(each.placed);
    given_.clear();
    return {};
}

struct Attachment {
    machine::Machine& machine;
    machine::Bdf address;

    ~Attachment() { (void)machine.detach(address); }
};

class Audit {
  public:
    Audit(machine::Machine& machine, machine::Function& function, Arena& arena,
          const AuditOptions& options, DeviceReport& report)
        : machine_(machine), function_(function), arena_(arena), options_(options), report_(report),
          ledger_(options, report) {}

    Result<void> run() {
        std::uint64_t next = options_.first_case;
        report_.first_case = report_.end_case = next;
        std::uint64_t end = options_.end_case.value_or(next + 1);
        while (next < end && !report_.ended_early && !stopped_) {
            Session session(machine_, function_, arena_, options_, ledger_, history_, contents_,
                            placement_of(next));
            MOAT_TRY(session.start());
            report_.driver = session.driver().name();
            plan_.emplace(session.driver().operations(), options_.placements, options_.seed,
                          session.driver().medium());
            if (plan_->at(next).placement != session_placement_)
                continue; // the length of a round is known only now
            end = options_.end_case.value_or(plan_->systematic());
            if (const auto done = round(session, next, end); !done && machine_.health())
                return done;
            else if (!done)
                note_death(session.driver(), plan_->at(next - 1), done.error());
        }
        return {};
    }

  private:
    /// The machine failed during a case or while the device was settling.
    void note_death(const Driver& driver, const Case& about, const Error& why) {
        report_.ended_early = true;
        ledger_.note({{.kind = FindingKind::hang,
                       .operation = std::string(driver.operations()[about.operation].name),
                       .about = about,
                       .first_case = about.number,
                       .report = "the machine failed: " + to_string(why) + "\n"}});
    }

    [[nodiscard]] Placement placement_of(std::uint64_t number) {
        session_placement_ =
            plan_ ? plan_->at(number).placement : Plan::placement_of_round(options_.placements, 0);
        return session_placement_;
    }

    /// Runs cases up to the end of the round, or to the first that the driver does not survive.
    Result<void> round(Session& session, std::uint64_t& next, std::uint64_t end) {
        const std::uint64_t round_end = std::min(end, plan_->round_end(next));
        Case about = plan_->at(next);
        while (next != round_end) {
            about = plan_->at(next++);
            report_.end_case = next;
            MOAT_LET(const bool goes_on, session.run(about));
            stopped_ = next % 16 == 0 && options_.goes_on && !options_.goes_on(report_.tally);
            if (!goes_on || stopped_)
                break;
        }
        return session.finish(about);
    }

    machine::Machine& machine_;
    machine::Function& function_;
    Arena& arena_;
    const AuditOptions& options_;
    DeviceReport& report_;
    Ledger ledger_;
    fault::History history_{remembered};
    Contents contents_;
    std::optional<Plan> plan_;
    Placement session_placement_ = Placement::left;
    bool stopped_ = false;
};

} // namespace

Result<DeviceReport> audit_function(machine::Machine& machine, machine::Bdf address,
                                    const AuditOptions& options) {
    DeviceReport report;
    report.address = address;
    MOAT_LET(const auto domain, machine.create_domain());
    MOAT_TRY(machine.attach(address, *domain));
    const Attachment attachment{machine, address};
    MOAT_LET(const auto function, machine.open(address));
    const auto wrapped = options.wrap_domain ? options.wrap_domain(*domain) : nullptr;
    MOAT_LET(Arena arena, Arena::create(machine, wrapped ? *wrapped : *domain,
                                        {.guard = options.guard,
                                         .seed = options.seed,
                                         .decoys = options.decoys,
                                         .guards = options.guards}));
    report.caches_translations = function->info().caches_translations;
    Audit audit(machine, *function, arena, options, report);
    MOAT_TRY(audit.run());
    return report;
}

} // namespace moat::audit
