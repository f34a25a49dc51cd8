// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DmaMapping: the result of one DMA map, as runs of leaves; and DmaMappingTree, which finds
// mappings by IOVA. No locks: dma_map.hpp uses both under its own.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/range.hpp"
#include "moat/mm/vma.hpp"
#include "moat/page_table/attributes.hpp"
#include "moat/sync/concept.hpp"

#include <cstdint>
#include <utility>

namespace moat::mm {

/// Equal parts, one of each leaf, contiguous in IOVA and in physical memory.
template <SyncPolicy Sync>
struct Run {
    Iova start = {};
    PhysicalAddress physical = {};
    ByteCount part = {}; ///< the part of one leaf; each holds one reference to its memory
    std::uint64_t parts = 0;
    DeviceRegion<Sync>* region = nullptr; ///< nullptr: RAM, and pinned
    Run* next = nullptr;

    [[nodiscard]] ByteCount size() const { return ByteCount(part.value() * parts); }

    [[nodiscard]] IovaRange range() const { return {start, size()}; }

    /// Whether `other`, of one equal part, starts where this ends.
    [[nodiscard]] bool goes_on_with(const Run& other) const {
        return other.part == part && other.region == region &&
               other.physical.value() == physical.value() + size().value() &&
               other.start.value() == start.value() + size().value();
    }
};

template <SyncPolicy Sync>
struct DmaMapping {
    IovaRange range = {};
    Attributes permissions = Attributes::none;
    Run<Sync>* first = nullptr; ///< by IOVA; with holes where memory was revoked
    Run<Sync>* last = nullptr;

    // For the tree only.
    DmaMapping* left = nullptr;
    DmaMapping* right = nullptr;
};

/// Ranges that do not overlap. A treap whose priorities are a hash of the address, so that its
/// shape depends on its contents alone.
template <SyncPolicy Sync>
class DmaMappingTree {
  public:
    using Node = DmaMapping<Sync>;

    [[nodiscard]] std::uint64_t count() const { return count_; }

    /// The mapping that `address` lies in, or the next one above, or nullptr.
    [[nodiscard]] Node* at_or_above(Iova address) const {
        Node* best = nullptr;
        for (Node* node = root_; node != nullptr;) {
            const bool reaches = node->range.last() >= address;
            best = reaches ? node : best;
            node = reaches ? node->left : node->right;
        }
        return best;
    }

    /// The next one above, or nullptr.
    [[nodiscard]] Node* after(const Node& node) const {
        const std::uint64_t last = node.range.last().value();
        return last == ~std::uint64_t{0} ? nullptr : at_or_above(Iova(last + 1));
    }

    /// The lowest one that overlaps `range`, or nullptr.
    [[nodiscard]] Node* overlapping(IovaRange range) const {
        Node* const node = at_or_above(range.start());
        return node != nullptr && node->range.overlaps(range) ? node : nullptr;
    }

    void insert(Node& node) {
        Node** link = &root_;
        while (*link != nullptr && priority(**link) >= priority(node))
            link = below(**link, node);
        split(std::exchange(*link, &node), node);
        ++count_;
    }

    void erase(Node& node) {
        Node** link = &root_;
        while (*link != &node) {
            MOAT_CHECK(*link != nullptr, "what is erased is in the tree");
            link = below(**link, node);
        }
        Node* left = node.left;
        Node* right = node.right;
        while (left != nullptr && right != nullptr) {
            const bool takes_left = priority(*left) >= priority(*right);
            Node*& top = takes_left ? left : right;
            Node** const next = takes_left ? &top->right : &top->left;
            *link = top;
            link = next;
            top = *next;
        }
        *link = left != nullptr ? left : right;
        --count_;
    }

  private:
    static std::uint64_t priority(const Node& node) {
        const std::uint64_t page = node.range.start().value() >> 12;
        const std::uint64_t mixed = (page ^ page >> 29) * 0x9e37'79b9'7f4a'7c15;
        return (mixed ^ mixed >> 32) * 0xbf58'476d'1ce4'e5b9;
    }

    static Node** below(Node& above, const Node& wanted) {
        return wanted.range.start() < above.range.start() ? &above.left : &above.right;
    }

    /// Makes the parts of `tree` below and above `node` its subtrees.
    static void split(Node* tree, Node& node) {
        Node** left = &node.left;
        Node** right = &node.right;
        while (tree != nullptr)
            if (tree->range.start() < node.range.start()) {
                *left = tree;
                left = &tree->right;
                tree = tree->right;
            } else {
                *right = tree;
                right = &tree->left;
                tree = tree->left;
            }
        *left = nullptr;
        *right = nullptr;
    }

    Node* root_ = nullptr;
    std::uint64_t count_ = 0;
};

} // namespace moat::mm
