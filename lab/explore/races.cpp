// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Happens-before by vector clocks over the steps of one execution, in the manner of FastTrack.
#include "lab/explore/races.hpp"

#include "lab/explore/clock.hpp"

#include <map>
#include <utility>
#include <vector>

namespace moat::explore {

namespace {

class Synchronisation {
  public:
    explicit Synchronisation(const Machine& machine)
        : weak_(machine.options().memory_model == MemoryModelKind::c11), clocks_(most_actors),
          published_(machine.depth()), after_(machine.depth()) {}

    void take(const Step& step, std::size_t depth) {
        Clock& own = clocks_[step.actor];
        ++own.steps[step.actor];
        if (step.cause != no_step && step.touch.kind != Kind::flush)
            own.join(after_[static_cast<std::size_t>(step.cause)]);
        if (is_memory_access(step.touch.kind) || step.touch.kind == Kind::flush)
            access(step, depth, own);
        if (const Channel from = learns_from(step.touch.kind); from != Channel::none)
            own.join(channels_[{step.touch.location, from}]);
        for (ActorSet rest = step.touch.who; !rest.empty(); rest = rest.tail()) {
            if (step.touch.kind == Kind::read_end)
                awaited_[rest.first()].join(own);
            else
                own.join(std::exchange(awaited_[rest.first()], {}));
        }
        if (const Channel to = publishes_to(step.touch.kind); to != Channel::none)
            channels_[{step.touch.location, to}].join(
                step.actor >= first_buffer ? after_[static_cast<std::size_t>(step.cause)] : own);
        after_[depth] = own;
    }

    [[nodiscard]] const Clock& of(Actor actor) const { return clocks_[actor]; }

  private:
    void access(const Step& step, std::size_t depth, Clock& own) {
        const bool reads = step.touch.kind == Kind::load || is_read_modify_write(step.touch.kind);
        if (weak_) {
            Clock from;
            if (reads && step.reads_from != no_step)
                from = published_[static_cast<std::size_t>(step.reads_from)];
            if (reads && is_acquire(step.order))
                own.join(from);
            if (step.touch.kind == Kind::load)
                return;
            if (is_read_modify_write(step.touch.kind))
                published_[depth] = from; // a release sequence goes on
            if (is_release(step.order))
                published_[depth].join(own);
            return;
        }
        Clock& word = words_[step.touch.location];
        if (step.touch.kind == Kind::flush)
            word = after_[static_cast<std::size_t>(step.cause)];
        else if (step.touch.kind == Kind::store)
            word = own;
        else
            own.join(word);
        if (is_read_modify_write(step.touch.kind))
            word = own;
    }

    bool weak_;
    std::vector<Clock> clocks_;
    std::vector<Clock> published_;             ///< by step: joined by an acquire that reads it
    std::vector<Clock> after_;                 ///< by step: its actor's clock after it
    std::array<Clock, most_fibers> awaited_{}; ///< by waiting fiber: clocks of the sections' ends
    std::map<std::uint32_t, Clock> words_;
    std::map<std::pair<std::uint32_t, Channel>, Clock> channels_;
};

/// The last accesses to one plain variable, by actor, as the number of the actor's steps then.
struct Accesses {
    struct Last {
        int epoch = 0; ///< 1 + steps of the actor before it; 0: none
        std::size_t access = 0;
    };

    std::array<Last, most_actors> reads{};
    std::array<Last, most_actors> writes{};
};

/// Finds a conflicting access that does not happen before `clock`. Return: its number, or
/// nothing.
[[nodiscard]] std::optional<std::size_t> unordered(const Accesses& variable, Actor actor,
                                                   const Clock& clock, bool is_write) {
    for (Actor other = 0; other != most_actors; ++other) {
        if (other == actor)
            continue;
        for (const auto* last : {&variable.writes[other], &variable.reads[other]}) {
            const bool conflicts = is_write || last == &variable.writes[other];
            // The later of two steps publishes the accesses between them.
            if (conflicts && last->epoch != 0 && !clock.covers(other, last->epoch))
                return last->access;
        }
    }
    return {};
}

class RaceSearch {
  public:
    explicit RaceSearch(const Machine& machine) : machine_(machine), known_(machine) {}

    [[nodiscard]] std::optional<Violation> run() {
        for (std::size_t number = 0; number != machine_.plain_accesses().size(); ++number) {
            const PlainAccess& access = machine_.plain_accesses()[number];
            if (auto found = take_steps_up_to(access.depth))
                return found;
            Accesses& variable = variables_[access.location];
            const Clock& clock = known_.of(access.actor);
            if (const auto other = unordered(variable, access.actor, clock, access.is_write))
                return Violation{ViolationKind::data_race,
                                 "plain variable " + machine_.location_name(access.location) +
                                     ": " + (access.is_write ? "a write" : "a read") +
                                     " is not ordered with another access",
                                 access.actor,
                                 access.depth,
                                 step_before(*other),
                                 static_cast<std::int32_t>(number),
                                 static_cast<std::int32_t>(*other)};
            auto& own = access.is_write ? variable.writes : variable.reads;
            own[access.actor] = {clock.steps[access.actor] + 1, number};
        }
        return take_steps_up_to(machine_.depth());
    }

  private:
    [[nodiscard]] std::int32_t step_before(std::size_t access) const {
        return static_cast<std::int32_t>(machine_.plain_accesses()[access].depth) - 1;
    }

    /// A `free` conflicts with every access to the freed memory.
    std::optional<Violation> take_steps_up_to(std::size_t depth) {
        for (; taken_ < depth; ++taken_) {
            const Step& step = machine_.step_at(taken_);
            known_.take(step, taken_);
            if (step.touch.extent == 0)
                continue;
            const auto begin = variables_.lower_bound(step.touch.location);
            const auto end = variables_.lower_bound(step.touch.location + step.touch.extent);
            for (auto each = begin; each != end; ++each)
                if (const auto other =
                        unordered(each->second, step.actor, known_.of(step.actor), true))
                    return Violation{ViolationKind::use_after_free,
                                     "plain variable " + machine_.location_name(each->first) +
                                         " is freed while another thread may access it",
                                     step.actor,
                                     taken_,
                                     step_before(*other),
                                     no_step,
                                     static_cast<std::int32_t>(*other)};
        }
        return {};
    }

    const Machine& machine_;
    Synchronisation known_;
    std::map<std::uint32_t, Accesses> variables_;
    std::size_t taken_ = 0;
};

} // namespace

std::optional<Violation> find_data_race(const Machine& machine) {
    return RaceSearch(machine).run();
}

void judge(Machine& machine) {
    machine.finish();
    if (!machine.violation() && !machine.plain_accesses().empty())
        if (const auto race = find_data_race(machine))
            machine.report(*race);
}

} // namespace moat::explore
