// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "operations.hpp"

#include <array>
#include <iterator>
#include <sstream>

namespace moat::tests {

void Model::cut(std::uint64_t at) {
    auto after = pieces_.upper_bound(at);
    if (after == pieces_.begin())
        return;
    auto& [start, piece] = *std::prev(after);
    if (start == at || piece.last < at)
        return;
    pieces_.emplace(at, Piece{piece.last, piece.physical + (at - start), piece.attributes});
    piece.last = at - 1;
}

bool Model::overlaps(std::uint64_t start, std::uint64_t last) const {
    return bytes_in(start, last) != 0;
}

std::uint64_t Model::bytes_in(std::uint64_t start, std::uint64_t last) const {
    std::uint64_t bytes = 0;
    for (const auto& [at, piece] : pieces_)
        if (at <= last && piece.last >= start)
            bytes += std::min(piece.last, last) - std::max(at, start) + 1;
    return bytes;
}

void Model::unmap(std::uint64_t start, std::uint64_t last) {
    cut(start);
    if (last != ~std::uint64_t{0})
        cut(last + 1);
    pieces_.erase(pieces_.lower_bound(start), pieces_.upper_bound(last));
}

void Model::protect(std::uint64_t start, std::uint64_t last, Attributes attributes) {
    cut(start);
    if (last != ~std::uint64_t{0})
        cut(last + 1);
    for (auto at = pieces_.lower_bound(start); at != pieces_.upper_bound(last); ++at)
        at->second.attributes = attributes;
}

Mappings Model::merged() const {
    Mappings merged;
    for (const auto& [start, piece] : pieces_)
        append_merged(merged, start, piece);
    return merged;
}

std::string Operation::describe() const {
    static constexpr std::array<const char*, kinds> names = {
        "map", "unmap", "protect", "split", "fold", "clear_flags", "use"};
    std::ostringstream out;
    out << names[static_cast<std::size_t>(kind)] << " start=" << hexadecimal(start)
        << " size=" << hexadecimal(size) << " physical=" << hexadecimal(physical)
        << " attributes=" << static_cast<std::uint32_t>(attributes)
        << " largest_leaf_lg2=" << largest_leaf_lg2
        << (partial == PartialLeaf::split ? " split" : " refuse")
        << (breaking == Break::allowed ? " break" : " no-break")
        << (tables == CoveredTables::keep ? " keep" : " remove");
    return out.str();
}

namespace {

/// A length: pages, blocks, or one of these plus or minus a page.
std::uint64_t choose_size(const FormatFacts& facts, const Choose& choose) {
    const std::uint64_t page = facts.page();
    switch (choose(5)) {
    case 0:
        return page;
    case 1:
        return page * (1 + choose(40));
    case 2:
        return facts.block() + page * choose(3) - page;
    case 3:
        return bit(facts.leaf_sizes_lg2[choose(facts.leaf_sizes_lg2.size())]);
    default:
        return facts.block() * (1 + choose(3));
    }
}

/// Four windows: the space's start, a boundary of the third level, and near its end (twice).
std::uint64_t choose_start(const FormatFacts& facts, std::uint64_t size, const Choose& choose) {
    const unsigned bits = facts.sign_extended ? facts.input_bits - 1 : facts.input_bits;
    const std::uint64_t third = bit(facts.entry_lg2[facts.most_levels > 2 ? 2 : 1]);
    const std::uint64_t offset =
        choose(2) == 0 ? facts.page() * choose(64) : facts.block() * choose(4);
    switch (choose(4)) {
    case 0:
        return offset;
    case 1:
        return third - facts.block() + offset;
    case 2:
        return low_bits(bits) - size + 1 - offset;
    default:
        return facts.sign_extended ? ~low_bits(bits) + offset : third + offset;
    }
}

Attributes choose_attributes(const FormatFacts& facts, const Choose& choose) {
    for (;;) {
        const auto attributes = static_cast<Attributes>(choose(4) == 0 ? choose(256) : choose(4));
        if (facts.representable(attributes))
            return attributes;
        if (choose(4) == 0)
            return read_write;
    }
}

/// Whether a leaf lies across `boundary`.
bool is_cut(Engine& engine, std::uint64_t boundary) {
    const std::uint64_t size = engine.leaf_size(boundary);
    return size != 0 && !is_aligned(boundary, alignment_lg2(size));
}

template <class Done>
std::string unexpected_result(const Done& done, const char* expected) {
    return std::string("expected ") + expected + ", got " +
           (done ? "success" : to_string(done.error()));
}

/// Checks a result that depends on leaves at the range's ends.
template <class Done>
std::string judge_cut(const Done& done, bool cut, const Operation& operation,
                      const FormatFacts& facts) {
    const bool may_need_break = operation.breaking == Break::forbidden &&
                                (facts.capabilities.level_change == LiveChange::break_before_make ||
                                 facts.capabilities.group_change == LiveChange::break_before_make);
    if (cut && operation.partial == PartialLeaf::refuse)
        return !done && done.error().code() == ErrorCode::refused
                   ? ""
                   : unexpected_result(done, "refused");
    if (done || done.error().code() == ErrorCode::no_memory)
        return "";
    if (may_need_break && done.error().code() == ErrorCode::refused)
        return "";
    return unexpected_result(done, "success");
}

std::string perform_map(const Operation& operation, Engine& engine, Model& model,
                        std::uint64_t last) {
    const bool overlap = model.overlaps(operation.start, last);
    const auto done =
        engine.map(operation.start, operation.size, operation.physical, operation.attributes,
                   {.largest_leaf_lg2 = operation.largest_leaf_lg2});
    if (overlap)
        return !done && done.error().code() == ErrorCode::overlap
                   ? ""
                   : unexpected_result(done, "overlap");
    if (!done)
        return done.error().code() == ErrorCode::no_memory ? ""
                                                           : unexpected_result(done, "success");
    model.map(operation.start, {last, operation.physical, operation.attributes});
    return "";
}

std::string perform_unmap(const Operation& operation, const FormatFacts& facts, Engine& engine,
                          Model& model, std::uint64_t last, bool cut) {
    const std::uint64_t bytes = model.bytes_in(operation.start, last);
    const auto done = engine.unmap(
        operation.start, operation.size,
        {.partial = operation.partial, .breaking = operation.breaking, .tables = operation.tables});
    if (done) {
        model.unmap(operation.start, last);
        if (done->bytes != bytes)
            return "unmapped " + hexadecimal(done->bytes) + " bytes of " + hexadecimal(bytes);
    }
    return judge_cut(done, cut, operation, facts);
}

std::string perform_protect(const Operation& operation, const FormatFacts& facts, Engine& engine,
                            Model& model, std::uint64_t last, bool cut) {
    const std::uint64_t bytes = model.bytes_in(operation.start, last);
    const auto done =
        engine.protect(operation.start, operation.size, operation.attributes,
                       {.partial = operation.partial, .breaking = operation.breaking});
    if (done) {
        model.protect(operation.start, last, operation.attributes);
        if (done->bytes != bytes)
            return "protected " + hexadecimal(done->bytes) + " bytes of " + hexadecimal(bytes);
    }
    if (!done && done.error().code() == ErrorCode::refused &&
        operation.breaking == Break::forbidden &&
        facts.capabilities.group_change == LiveChange::break_before_make)
        return "";
    return judge_cut(done, cut, operation, facts);
}

std::string perform_fold(const Operation& operation, Engine& engine) {
    const auto done = engine.fold(operation.start, operation.size, operation.breaking);
    if (done && engine.leaf_size(operation.start) < operation.size)
        return "folded, but the leaf is smaller";
    return "";
}

} // namespace

Operation choose_operation(const FormatFacts& facts, const Choose& choose) {
    Operation operation{};
    // Half of all operations map; otherwise most would find nothing.
    operation.kind = static_cast<Operation::Kind>(choose(2) == 0 ? 0 : choose(Operation::kinds));
    operation.size = choose_size(facts, choose);
    operation.start = choose_start(facts, operation.size, choose);
    operation.attributes = choose_attributes(facts, choose);
    operation.largest_leaf_lg2 = 63;
    const bool congruent = choose(3) != 0;
    operation.physical = operation.start & low_bits(facts.output_bits - 1);
    if (!congruent) {
        operation.physical = facts.page() * choose(1U << 20);
        operation.size = std::min(operation.size, 4 * facts.block());
    } else if (choose(4) == 0 && operation.size <= 4 * facts.block()) {
        operation.largest_leaf_lg2 = facts.leaf_sizes_lg2[choose(facts.leaf_sizes_lg2.size())];
    }
    operation.partial = choose(3) == 0 ? PartialLeaf::refuse : PartialLeaf::split;
    operation.breaking = choose(3) == 0 ? Break::forbidden : Break::allowed;
    operation.tables = choose(3) == 0 ? CoveredTables::keep : CoveredTables::remove;
    return operation;
}

std::string perform(const Operation& operation, const FormatFacts& facts, Engine& engine,
                    Model& model) {
    const std::uint64_t last = operation.start + (operation.size - 1);
    const std::uint64_t space =
        facts.sign_extended ? bit(facts.input_bits - 1) - 1 : low_bits(facts.input_bits);
    const bool upper = facts.sign_extended && operation.start >= ~space;
    if (last < operation.start || (!upper && last > space) ||
        (operation.physical + (operation.size - 1)) >> facts.output_bits != 0) {
        const auto done =
            engine.map(operation.start, operation.size, operation.physical, operation.attributes);
        return done ? "mapped what does not fit" : "";
    }
    const bool cut = is_cut(engine, operation.start) ||
                     (last + 1 != 0 && (upper || last != space) && is_cut(engine, last + 1));
    switch (operation.kind) {
    case Operation::Kind::map:
        return perform_map(operation, engine, model, last);
    case Operation::Kind::unmap:
        return perform_unmap(operation, facts, engine, model, last, cut);
    case Operation::Kind::protect:
        return perform_protect(operation, facts, engine, model, last, cut);
    case Operation::Kind::split: {
        Operation splitting = operation;
        splitting.partial = PartialLeaf::split;
        return judge_cut(engine.split(operation.start, operation.size, operation.breaking), cut,
                         splitting, facts);
    }
    case Operation::Kind::fold:
        return perform_fold(operation, engine);
    case Operation::Kind::clear_flags: {
        const auto done = engine.clear_flags(operation.start, operation.size, accessed_and_dirty);
        return done || done.error().code() == ErrorCode::unsupported
                   ? ""
                   : unexpected_result(done, "success");
    }
    case Operation::Kind::use:
        if (engine.translate(operation.start))
            engine.hardware_uses(operation.start, accessed_and_dirty);
        return "";
    }
    return "no such operation";
}

std::string compare(Engine& engine, const Model& model) {
    const Mappings mapped = engine.mappings();
    const Mappings expected = model.merged();
    if (mapped == expected)
        return "";
    std::ostringstream out;
    out << "the tree maps";
    for (const auto& [start, piece] : mapped)
        out << "\n  " << hexadecimal(start) << ' ' << piece;
    out << "\nand should map";
    for (const auto& [start, piece] : expected)
        out << "\n  " << hexadecimal(start) << ' ' << piece;
    return out.str();
}

} // namespace moat::tests
