// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sequences of operations on an Engine beside a plain model of its mappings. The random suites
// generate them from a seed, the fuzzer from bytes; both print them as they run.
#pragma once

#include "engine.hpp"

#include <cstdint>
#include <span>
#include <string>

namespace moat::tests {

/// The mappings, without tables, levels or leaves.
class Model {
  public:
    [[nodiscard]] bool overlaps(std::uint64_t start, std::uint64_t last) const;
    [[nodiscard]] std::uint64_t bytes_in(std::uint64_t start, std::uint64_t last) const;

    void map(std::uint64_t start, const Piece& piece) { pieces_.emplace(start, piece); }

    void unmap(std::uint64_t start, std::uint64_t last);
    void protect(std::uint64_t start, std::uint64_t last, Attributes attributes);

    /// As Engine::mappings returns it.
    [[nodiscard]] Mappings merged() const;

  private:
    /// Makes `at` the start of a piece if it lies inside one.
    void cut(std::uint64_t at);

    Mappings pieces_;
};

struct Operation {
    enum class Kind : std::uint8_t { map, unmap, protect, split, fold, clear_flags, use };
    static constexpr unsigned kinds = 7;

    Kind kind;
    std::uint64_t start;
    std::uint64_t size;
    std::uint64_t physical;
    Attributes attributes;
    unsigned largest_leaf_lg2;
    PartialLeaf partial;
    Break breaking;
    CoveredTables tables;

    [[nodiscard]] std::string describe() const;
};

/// Numbers that choose an operation: from a random generator, or from a fuzzer's bytes.
using Choose = std::function<std::uint64_t(std::uint64_t below)>;

/// An operation near a few places of the format's space where levels and groups meet.
Operation choose_operation(const FormatFacts& facts, const Choose& choose);

/// Performs `operation` on both. Return: the difference from the model, or an empty text.
std::string perform(const Operation& operation, const FormatFacts& facts, Engine& engine,
                    Model& model);

/// Compares the whole tree's mappings with the model's. Return: as `perform`.
std::string compare(Engine& engine, const Model& model);

} // namespace moat::tests
