// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source-DPOR with sleep sets: explore one branch, find its races, and for each race add one branch
// before the race's first step, unless a branch there covers it.
// Source: Abdulla, Aronis, Jonsson, Sagonas, "Optimal dynamic partial order reduction", POPL 2014,
// algorithm 1; locks as in their journal version (JACM 2017, section 10).
#include "lab/explore/clock.hpp"
#include "tree_search.hpp"

#include <array>
#include <cstdlib>
#include <limits>
#include <memory>

namespace moat::explore {

namespace {

/// The last step at each location of the arena, by words of eight bytes; pages that no location
/// needs are never touched.
class LastAtLocation {
  public:
    [[nodiscard]] std::int32_t get(std::uint32_t location) const {
        return steps_.get()[location / 8] - 1;
    }

    void set(std::uint32_t location, std::int32_t step) { steps_.get()[location / 8] = step + 1; }

  private:
    struct Free {
        void operator()(std::int32_t* steps) const { std::free(steps); }
    };

    std::unique_ptr<std::int32_t, Free> steps_{
        static_cast<std::int32_t*>(std::calloc(Arena::bytes / 8, sizeof(std::int32_t)))};
};

/// `Actors` bounds the width of a clock; an actor counts at its number modulo `Actors`.
template <Actor Actors>
class DporPolicy : public TreePolicy {
  public:
    static constexpr bool sleeps = true;

    explicit DporPolicy(const Machine& machine)
        : machine_(machine), events_(machine.options().most_steps + 1) {
        last_of_actor_.fill(no_step);
    }

    static void open(std::vector<TreeNode>& nodes, std::size_t depth) {
        TreeNode& node = nodes[depth];
        node.backtrack = ActorSet::of((node.enabled - node.sleep).first());
    }

    void executed(std::vector<TreeNode>& nodes, std::size_t depth) {
        const Step& step = machine_.step_at(depth);
        Event& event = events_[depth];
        races_.clear();
        event.clock = clock_of(step.actor, step.touch, step.cause, depth);
        event.touch = step.touch;
        event.actor = step.actor;
        const std::int32_t previous = last_of_actor_[step.actor];
        event.number = previous == no_step ? 1 : events_[idx(previous)].number + 1;
        event.clock.steps[step.actor % Actors] = static_cast<std::int16_t>(event.number);
        event.previous_of_actor = previous;
        last_of_actor_[step.actor] = static_cast<std::int32_t>(depth);
        if (step.touch.location != nowhere) {
            event.previous_at_location = last_at_.get(step.touch.location);
            last_at_.set(step.touch.location, static_cast<std::int32_t>(depth));
        }
        ++taken_;
        for (std::int32_t race : races_)
            reverse(nodes, idx(race), depth, step.actor, event.clock);
    }

    /// A thread that is blocked for ever, or a cancelled timer, never takes the step that would
    /// show its races.
    void ended(std::vector<TreeNode>& nodes) {
        for (ActorSet rest = machine_.live(); !rest.empty(); rest = rest.tail()) {
            races_.clear();
            const Actor actor = rest.first();
            if (machine_.held().contains(actor))
                continue;
            const Clock clock =
                clock_of(actor, machine_.pending_touch(actor), no_step, machine_.depth());
            for (std::int32_t race : races_)
                reverse(nodes, idx(race), machine_.depth(), actor, clock);
        }
    }

    void rewind(std::size_t depth) {
        while (taken_ != depth) {
            const Event& event = events_[--taken_];
            last_of_actor_[event.actor] = event.previous_of_actor;
            if (event.touch.location != nowhere)
                last_at_.set(event.touch.location, event.previous_at_location);
        }
    }

  private:
    using Clock = ClockOf<Actors>;

    /// What races need of a step.
    struct Event {
        Clock clock;
        Touch touch;
        Actor actor = 0;
        int number = 0; ///< among the steps of its actor, from 1
        std::int32_t previous_of_actor = no_step;
        std::int32_t previous_at_location = no_step;
    };

    [[nodiscard]] static std::size_t idx(std::int32_t step) {
        return static_cast<std::size_t>(step);
    }

    /// The clock of a step of `actor` that touches `touch`; collects its races in `races_`.
    [[gnu::always_inline]] Clock clock_of(Actor actor, const Touch& touch, std::int32_t cause,
                                          std::size_t depth) {
        Clock order;
        if (last_of_actor_[actor] != no_step)
            order = events_[idx(last_of_actor_[actor])].clock;
        else if (const Actor before = machine_.begins_after(actor); before != nobody)
            order = events_[idx(first_of(before))].clock;
        if (cause != no_step)
            order.join(events_[idx(cause)].clock);
        // Skips steps that only enable this one: a lock does not race with an unlock, and the
        // unlock must not hide the race with the lock before it.
        Clock seen = order;
        if (touch.extent != 0) {
            relate_all(depth, actor, touch, order, seen);
        } else if (touch.location != nowhere) {
            for (std::int32_t at = last_at_.get(touch.location); at != no_step;
                 at = events_[idx(at)].previous_at_location) {
                relate(idx(at), actor, touch, order, seen);
                const Touch& other = events_[idx(at)].touch;
                if (other.location == touch.location && orders_all_before(other.kind))
                    break;
            }
        }
        return order;
    }

    /// The first step of an actor that has moved.
    [[nodiscard]] std::int32_t first_of(Actor actor) const {
        std::int32_t at = last_of_actor_[actor];
        while (events_[idx(at)].previous_of_actor != no_step)
            at = events_[idx(at)].previous_of_actor;
        return at;
    }

    /// Of a `free`, which touches many locations.
    [[gnu::noinline]] void relate_all(std::size_t depth, Actor actor, const Touch& touch,
                                      Clock& order, Clock& seen) {
        for (std::size_t at = depth; at-- != 0;)
            relate(at, actor, touch, order, seen);
    }

    [[gnu::always_inline]] void relate(std::size_t at, Actor actor, const Touch& touch,
                                       Clock& order, Clock& seen) {
        const Event& event = events_[at];
        if (event.actor == actor)
            return;
        const Dependence how = dependence(event.touch, touch);
        if (how == Dependence::none)
            return;
        if (how != Dependence::ordered && !seen.covers(event.actor % Actors, event.number)) {
            races_.push_back(static_cast<std::int32_t>(at));
            if (how == Dependence::race)
                seen.join(event.clock);
        }
        order.join(event.clock);
    }

    /// Adds a branch before step `first`, unless one there is an initial of the steps that follow
    /// `first` without depending on it, up to the step of `second` at `end` with clock `clock`.
    void reverse(std::vector<TreeNode>& nodes, std::size_t first, std::size_t end, Actor second,
                 const Clock& clock) {
        TreeNode& node = nodes[first];
        const Event* const events = events_.data();
        const Actor first_actor = events[first].actor % Actors;
        const int first_number = events[first].number;
        const ActorSet covered = node.backtrack | node.sleep;
        ActorSet seen;
        ActorSet initials;
        Clock begins; // of the actors seen; no clock covers the others
        begins.steps.fill(std::numeric_limits<std::int16_t>::max());
        for (std::size_t at = first + 1; at <= end; ++at) {
            const bool is_second = at == end;
            const Actor actor = is_second ? second : events[at].actor;
            if (seen.contains(actor))
                continue;
            const Clock& known = is_second ? clock : events[at].clock;
            if (!is_second && known.covers(first_actor, first_number))
                continue;
            if (!known.covers_any(begins)) {
                if (covered.contains(actor))
                    return;
                initials.add(actor);
            }
            if (is_second)
                break;
            seen.add(actor);
            begins.steps[actor % Actors] = static_cast<std::int16_t>(events[at].number);
        }
        const ActorSet possible = initials & node.enabled;
        if (!possible.empty())
            node.backtrack.add(possible.contains(second) ? second : possible.first());
    }

    const Machine& machine_;
    std::vector<Event> events_;
    std::array<std::int32_t, most_actors> last_of_actor_;
    LastAtLocation last_at_;
    std::vector<std::int32_t> races_;
    std::size_t taken_ = 0;
};

template <Actor Actors>
[[nodiscard]] SearchResult search_with(Machine& machine, const SearchOptions& options) {
    DporPolicy<Actors> policy(machine);
    return TreeSearch<DporPolicy<Actors>>(machine, options, policy).run();
}

} // namespace

SearchResult search_dpor(Machine& machine, const SearchOptions& options) {
    if (machine.options().memory_model == MemoryModelKind::tso)
        return search_with<most_actors>(machine, options);
    // The two services are the last two fibers, in either width.
    constexpr Actor few = 8;
    static_assert(reclaimer % few == few - 2 && timer_service % few == few - 1);
    machine.start(); // to count the threads
    return machine.threads() <= few - 2 ? search_with<few>(machine, options)
                                        : search_with<most_fibers>(machine, options);
}

} // namespace moat::explore
