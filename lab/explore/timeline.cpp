// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Columns, decoded values, and the search for a stale read.
#include "lab/explore/timeline.hpp"

#include "moat/core/text.hpp"

#include "joined.hpp"

#include <algorithm>
#include <vector>

namespace moat::explore {

namespace {

[[nodiscard]] std::string value_text(const Machine& machine, const Step& step,
                                     std::uint64_t value) {
    if (const Decoder decode = machine.decoder(step.touch.location))
        return decode(value);
    const std::uint64_t offset = machine.portable(value);
    return offset == value ? hexadecimal(value)
                           : machine.location_name(static_cast<std::uint32_t>(offset));
}

[[nodiscard]] std::string order_text(std::memory_order order) {
    switch (order) {
    case std::memory_order_relaxed:
        return ".relaxed";
    case std::memory_order_consume:
    case std::memory_order_acquire:
        return ".acquire";
    case std::memory_order_release:
        return ".release";
    case std::memory_order_acq_rel:
        return ".acq_rel";
    case std::memory_order_seq_cst:
        return "";
    }
    return "";
}

[[nodiscard]] bool changes_memory(const Step& step) {
    return step.touch.kind == Kind::flush ||
           (is_memory_access(step.touch.kind) && step.touch.kind != Kind::load);
}

struct Column {
    Actor actor = 0;
    std::string head;
    std::vector<std::string> cells;
    std::size_t width = 0;
};

[[nodiscard]] std::vector<Column> columns_of(const Machine& machine) {
    ActorSet actors;
    for (std::size_t at = 0; at != machine.depth(); ++at)
        actors.add(machine.step_at(at).actor);
    std::vector<Column> columns;
    for (; !actors.empty(); actors = actors.tail()) {
        Column column = {actors.first(), machine.actor_name(actors.first()), {}, 0};
        column.width = column.head.size();
        for (std::size_t at = 0; at != machine.depth(); ++at) {
            const Step& step = machine.step_at(at);
            column.cells.push_back(step.actor == column.actor ? describe_effect(machine, step)
                                                              : "");
            column.width = std::max(column.width, column.cells.back().size());
        }
        columns.push_back(std::move(column));
    }
    return columns;
}

[[nodiscard]] std::string padded(std::string text, std::size_t width) {
    text.resize(std::max(text.size(), width), ' ');
    return text;
}

[[nodiscard]] std::string mark(const std::optional<StaleRead>& stale, const Violation* violation,
                               std::size_t at) {
    if (stale && at == stale->knew)
        return "  <- the value it relies on ...";
    if (stale && at == stale->changed)
        return "  <- ... becomes stale here";
    if (stale && at == stale->looked)
        return "  <- ... and is used, or found changed, here";
    if (violation != nullptr && violation->other_step == static_cast<std::int32_t>(at))
        return "  <- the other side";
    return "";
}

} // namespace

std::optional<StaleRead> find_stale_read(const Machine& machine) {
    if (!machine.violation())
        return {};
    const Actor blamed = machine.violation()->actor;
    for (std::size_t looked = machine.depth(); looked-- != 0;) {
        const Step& look = machine.step_at(looked);
        if (look.actor != blamed || !is_memory_access(look.touch.kind))
            continue;
        std::optional<std::size_t> changed;
        for (std::size_t at = looked; at-- != 0;) {
            const Step& step = machine.step_at(at);
            if (step.touch.location != look.touch.location)
                continue;
            if (step.actor == blamed) {
                if (changed)
                    return StaleRead{at, *changed, looked};
                break;
            }
            if (changes_memory(step) && !changed)
                changed = at;
        }
    }
    return {};
}

std::string describe_effect(const Machine& machine, const Step& step) {
    std::string text(name(step.touch.kind));
    if (is_memory_access(step.touch.kind))
        text += order_text(step.order);
    if (step.touch.location != nowhere)
        text.append(" ").append(machine.location_name(step.touch.location));
    switch (step.touch.kind) {
    case Kind::load:
        return text + " = " + value_text(machine, step, step.result);
    case Kind::store:
    case Kind::flush:
        return text + " := " + value_text(machine, step, step.operand);
    case Kind::exchange:
    case Kind::compare_exchange:
        return text + " := " + value_text(machine, step, step.operand) + ", was " +
               value_text(machine, step, step.result);
    case Kind::fetch_add:
    case Kind::fetch_sub:
    case Kind::fetch_or:
    case Kind::fetch_and:
        return text + " " + hexadecimal(step.operand) + ", was " + hexadecimal(step.result);
    case Kind::choose:
        return text + " " + std::to_string(step.result);
    case Kind::try_lock:
        return text + (step.result != 0 ? " got it" : " in vain");
    case Kind::wait_end:
        return text + (step.result != 0 ? " notified" : " timed out");
    case Kind::allocate:
        return step.result != 0 ? text : text + " fails";
    default:
        return text;
    }
}

std::string timeline(const Machine& machine) {
    const std::vector<Column> columns = columns_of(machine);
    const Violation* const violation = machine.violation() ? &*machine.violation() : nullptr;
    const std::optional<StaleRead> stale = find_stale_read(machine);
    std::string text = "   #";
    for (const Column& column : columns)
        text.append("  ").append(padded(column.head, column.width));
    text += "\n";
    for (std::size_t at = 0; at != machine.depth(); ++at) {
        std::string number = std::to_string(at);
        std::string line = std::string(4 - std::min<std::size_t>(4, number.size()), ' ') + number;
        for (const Column& column : columns)
            line.append("  ").append(padded(column.cells[at], column.width));
        line += mark(stale, violation, at);
        line.erase(line.find_last_not_of(' ') + 1);
        text += line + "\n";
    }
    if (violation != nullptr)
        text += joined({"violation (", name(violation->kind), ") in ",
                        machine.actor_name(violation->actor), ": ", violation->text, "\n"});
    return text;
}

} // namespace moat::explore
