// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selects and prints the stacks of a violation.
#include "lab/explore/stacks.hpp"

#include "joined.hpp"

#include <string_view>
#include <utility>

namespace moat::explore {

namespace {

[[nodiscard]] bool is_of_the_explorer(std::string_view function) {
    if (function.find(" at include/moat/explore/") != std::string_view::npos)
        return true;
    const std::string_view name = function.substr(0, function.find_first_of("<("));
    for (const std::string_view prefix :
         {"moat::explore::", "moat::explored::", "moat::ExploredSync::", "moat_explore_",
          "moat::detail::check_failed"}) {
        const std::size_t at = name.find(prefix);
        if (at == 0 || (at != std::string_view::npos && name[at - 1] == ' ')) // a return type
            return true;
    }
    return false;
}

/// How many steps `actor` takes before `depth`.
[[nodiscard]] std::size_t steps_of(const Machine& machine, Actor actor, std::size_t depth) {
    std::size_t count = 0;
    for (std::size_t at = 0; at != depth; ++at)
        count += machine.step_at(at).actor == actor ? 1U : 0U;
    return count;
}

class StackReport {
  public:
    StackReport(const Machine& machine, const StackRecorder& stacks, const Symbolise& symbolise)
        : machine_(machine), stacks_(stacks), symbolise_(symbolise) {}

    [[nodiscard]] std::string text() {
        const Violation& violation = *machine_.violation();
        switch (violation.kind) {
        case ViolationKind::data_race:
            add_plain("an access", violation.access);
            add_plain("the other access", violation.other_access);
            break;
        case ViolationKind::use_after_free:
        case ViolationKind::misuse:
            add_lifetime(violation);
            break;
        case ViolationKind::deadlock:
        case ViolationKind::livelock:
            for (ActorSet rest = machine_.unfinished(); !rest.empty(); rest = rest.tail())
                add("where it waits", rest.first(),
                    stacks_.of_operation(rest.first(),
                                         steps_of(machine_, rest.first(), machine_.depth())));
            break;
        case ViolationKind::check:
        case ViolationKind::memory:
            add_failure("the failure", violation);
            break;
        }
        return std::move(text_);
    }

  private:
    void add_lifetime(const Violation& violation) {
        const bool frees = violation.depth < machine_.depth() &&
                           machine_.step_at(violation.depth).touch.kind == Kind::free;
        add_failure(frees ? "the free" : "the access", violation);
        if (violation.other_access != no_step) {
            add_plain("the other access", violation.other_access);
            add_allocation(machine_.step_at(violation.depth).touch.location);
        } else if (violation.other_step != no_step) {
            add_step("the free", static_cast<std::size_t>(violation.other_step));
            add_allocation(
                machine_.step_at(static_cast<std::size_t>(violation.other_step)).touch.location);
        }
    }

    /// The place where the execution ended: between two steps of the actor, or at one.
    void add_failure(std::string_view what, const Violation& violation) {
        const Stack stack = stacks_.of_failure(violation.actor);
        if (!stack.empty())
            add(what, violation.actor, stack);
        else if (violation.depth < machine_.depth())
            add_step(what, violation.depth);
    }

    void add_step(std::string_view what, std::size_t depth) {
        const Step& step = machine_.step_at(depth);
        if (step.actor >= first_buffer && step.cause != no_step) {
            add_step(what, static_cast<std::size_t>(step.cause));
            return;
        }
        add(joined({what, ", step ", std::to_string(depth)}), step.actor,
            stacks_.of_operation(step.actor, steps_of(machine_, step.actor, depth)));
    }

    void add_plain(std::string_view what, std::int32_t access) {
        if (access == no_step)
            return;
        const auto number = static_cast<std::size_t>(access);
        const PlainAccess& plain = machine_.plain_accesses()[number];
        add(joined({what, ", a ", plain.is_write ? "write" : "read", " before step ",
                    std::to_string(plain.depth)}),
            plain.actor, stacks_.of_plain_access(number));
    }

    void add_allocation(std::uint32_t location) {
        if (const auto* const found = stacks_.allocation_of(location))
            add(joined({"the allocation of ", std::to_string(found->size), " bytes"}), found->actor,
                found->stack);
    }

    void add(std::string_view what, Actor actor, const Stack& stack) {
        text_ += joined(
            {what, ", in ",
             actor == nobody ? "the setup or the final check" : machine_.actor_name(actor), ":\n"});
        bool is_inside = true;
        for (const std::uintptr_t address : stack)
            for (const std::string& function : symbolise_(address)) {
                const bool explorers = is_of_the_explorer(function);
                if (!explorers)
                    text_ += joined({"    ", function, "\n"});
                if (explorers && !is_inside)
                    return;
                is_inside = is_inside && explorers;
            }
    }

    const Machine& machine_;
    const StackRecorder& stacks_;
    const Symbolise& symbolise_;
    std::string text_;
};

} // namespace

Stack StackRecorder::stack_here() const {
    constexpr std::size_t deepest = 48;
    Stack stack(deepest);
    stack.resize(capture_(stack, 0));
    return stack;
}

void StackRecorder::announces(Actor actor) {
    operations_[actor].push_back(stack_here());
}

void StackRecorder::accesses_plain(Actor) {
    plain_.push_back(stack_here());
}

void StackRecorder::allocates(Actor actor, std::uint32_t begin, std::size_t size) {
    allocations_[begin] = {actor, size, stack_here()};
}

void StackRecorder::fails(Actor actor) {
    failures_[actor] = stack_here();
}

Stack StackRecorder::of_operation(Actor actor, std::size_t number) const {
    return number < operations_[actor].size() ? operations_[actor][number] : Stack();
}

Stack StackRecorder::of_plain_access(std::size_t number) const {
    return number < plain_.size() ? plain_[number] : Stack();
}

Stack StackRecorder::of_failure(Actor actor) const {
    return failures_[actor];
}

const StackRecorder::Allocation* StackRecorder::allocation_of(std::uint32_t location) const {
    auto found = allocations_.upper_bound(location);
    if (found == allocations_.begin())
        return nullptr;
    --found;
    return location - found->first < found->second.size ? &found->second : nullptr;
}

std::string stacks_text(const Machine& machine, const StackRecorder& stacks,
                        const Symbolise& symbolise) {
    return machine.violation() ? StackReport(machine, stacks, symbolise).text() : "";
}

} // namespace moat::explore
