// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A radix tree from a page to the word of the range that starts there (record.hpp). Readers take no
// lock: leaves stay until the end. Each thread has a small cache of leaves in front of it.
#pragma once

#include "moat/iova/detail/pages.hpp"
#include "moat/sync/concept.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace moat::iova {

template <SyncPolicy Sync>
class LiveMap {
  public:
    using Word = typename Sync::template Atomic<std::uint32_t>;

    static constexpr unsigned leaf_lg2 = 7;
    static constexpr std::uint64_t leaf_pages = std::uint64_t{1} << leaf_lg2;

    struct alignas(64) Leaf {
        std::array<Word, leaf_pages> words{};
    };

    explicit LiveMap(std::uint64_t end_page) {
        while ((fan_out * span(top_)) < end_page)
            ++top_;
    }

    ~LiveMap() { destroy_below(root_, top_); }

    LiveMap(const LiveMap&) = delete;
    LiveMap& operator=(const LiveMap&) = delete;

    /// The leaf of a page, or nullptr where it was never needed. Any thread.
    [[nodiscard]] Leaf* find(std::uint64_t page) const {
        if (page >> leaf_lg2 >> (fan_out_lg2 * (top_ + 1)) != 0)
            return nullptr;
        const Node* node = &root_;
        for (unsigned level = top_; level != 0; --level) {
            node = static_cast<const Node*>(
                node->below[index(page, level)].load(std::memory_order_acquire));
            if (node == nullptr)
                return nullptr;
        }
        return static_cast<Leaf*>(node->below[index(page, 0)].load(std::memory_order_acquire));
    }

    /// The word of a page of the space; makes its leaf where it is missing. The caller holds the
    /// lock that guards the making of leaves. Return: nullptr when memory failed.
    [[nodiscard]] Word* find_or_make_word(std::uint64_t page) {
        Node* node = &root_;
        for (unsigned level = top_; level != 0; --level) {
            node = below<Node>(*node, index(page, level));
            if (node == nullptr)
                return nullptr;
        }
        Leaf* const leaf = below<Leaf>(*node, index(page, 0));
        return leaf != nullptr ? &word(*leaf, page) : nullptr;
    }

    [[nodiscard]] static Word& word(Leaf& leaf, std::uint64_t page) {
        return leaf.words[page % leaf_pages];
    }

    /// The word of a page, or nullptr where its leaf was never needed. Any thread.
    [[nodiscard]] Word* find_word(std::uint64_t page) const {
        Leaf* const leaf = find(page);
        return leaf != nullptr ? &word(*leaf, page) : nullptr;
    }

  private:
    static constexpr unsigned fan_out_lg2 = 9;
    static constexpr std::uint64_t fan_out = std::uint64_t{1} << fan_out_lg2;

    struct Node {
        mutable std::array<typename Sync::template Atomic<void*>, fan_out> below{};
    };

    /// The pages of one child of a node of this level.
    static constexpr std::uint64_t span(unsigned level) {
        return leaf_pages << (fan_out_lg2 * level);
    }

    static std::uint64_t index(std::uint64_t page, unsigned level) {
        return (page >> (leaf_lg2 + fan_out_lg2 * level)) % fan_out;
    }

    template <class T>
    static T* below(Node& node, std::uint64_t i) {
        void* found = node.below[i].load(std::memory_order_relaxed);
        if (found == nullptr) {
            found = Sync::template make<T>();
            node.below[i].store(found, std::memory_order_release);
        }
        return static_cast<T*>(found);
    }

    static void destroy_below(Node& node, unsigned level) {
        for (auto& each : node.below) {
            void* const found = each.load(std::memory_order_relaxed);
            if (found == nullptr)
                continue;
            if (level == 0) {
                Sync::destroy(static_cast<Leaf*>(found));
                continue;
            }
            destroy_below(*static_cast<Node*>(found), level - 1);
            Sync::destroy(static_cast<Node*>(found));
        }
    }

    Node root_{};
    unsigned top_ = 0;
};

/// The leaves that one thread used last, found by one compare.
template <SyncPolicy Sync>
class LeafCache {
  public:
    using Map = LiveMap<Sync>;
    using Word = typename Map::Word;

    LeafCache() {
        // Each empty line starts where no address that maps to it lies.
        for (std::size_t i = 0; i != size; ++i)
            lines_[i].start = static_cast<std::uint64_t>(i + 1) << line_lg2;
    }

    /// Whether the word of an address is cached; false for one that is no multiple of a page.
    [[nodiscard, gnu::always_inline]] bool holds(std::uint64_t iova) const {
        return place(iova) < Map::leaf_pages;
    }

    /// The word of an address for which `holds` is true.
    [[nodiscard, gnu::always_inline]] Word& word(std::uint64_t iova) const {
        return Map::word(*line(iova).leaf, place(iova));
    }

    /// Caches the leaf of an address, if there is one. Return: `holds(iova)`.
    [[nodiscard]] bool load(const Map& map, std::uint64_t iova) {
        const std::uint64_t page = iova >> page_lg2;
        typename Map::Leaf* const leaf = map.find(page);
        if (leaf != nullptr)
            lines_[index(iova)] = {page / Map::leaf_pages * Map::leaf_pages << page_lg2, leaf};
        return holds(iova);
    }

  private:
    struct Line {
        /// The first address that the leaf has a word for.
        std::uint64_t start = 0;
        typename Map::Leaf* leaf = nullptr;
    };

    static constexpr std::size_t size = 1024;
    /// The span of a leaf.
    static constexpr unsigned line_lg2 = Map::leaf_lg2 + page_lg2;

    static std::size_t index(std::uint64_t iova) { return (iova >> line_lg2) % size; }

    const Line& line(std::uint64_t iova) const { return lines_[index(iova)]; }

    /// The index in the leaf. The rotation makes bits below a page the highest, so that one compare
    /// rejects addresses outside the leaf and between two pages.
    std::uint64_t place(std::uint64_t iova) const {
        return std::rotr(iova - line(iova).start, page_lg2);
    }

    std::array<Line, size> lines_{};
};

} // namespace moat::iova
