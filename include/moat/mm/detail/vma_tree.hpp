// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// VmaTree: VMAs by address, found in O(log n) without a lock. It never changes in place: an Update
// builds a new tree beside the old one, shares the unchanged parts, and publishes it by one
// store. So a reader sees all VMAs as they were at one moment, and an Update that runs out
// of memory changes nothing.
//
// The tree is a treap: a search tree by address and a heap by a hash of the address, so that its
// shape follows from its VMAs alone and its depth is logarithmic in expectation.
#pragma once

#include "moat/core/check.hpp"
#include "moat/core/result.hpp"
#include "moat/mm/vma.hpp"

#include <atomic>
#include <cstdint>
#include <utility>

namespace moat::mm {

template <SyncPolicy Sync>
class VmaTree {
  public:
    using Attached = AttachedVma<Sync>;

  private:
    struct Node {
        Attached* vma;
        Node* left;
        Node* right;
        std::uint64_t update; ///< the number of the Update that made it
        Node* next = nullptr; ///< in the Update's list of new or of replaced nodes
    };

  public:
    /// The VMAs at one moment; valid in the ReadSection in which it was taken, or, for a
    /// writer, until its next publish().
    class View {
      public:
        /// The VMA that `address` lies in, or the next one above, or nullptr.
        [[nodiscard]] Attached* at_or_above(VirtualAddress address) const {
            Attached* best = nullptr;
            for (const Node* node = root_; node != nullptr;) {
                if (node->vma->range.last() >= address) {
                    best = node->vma;
                    node = node->left;
                } else {
                    node = node->right;
                }
            }
            return best;
        }

        [[nodiscard]] Attached* find(VirtualAddress address) const {
            Attached* const vma = at_or_above(address);
            return vma != nullptr && vma->range.contains(address) ? vma : nullptr;
        }

        /// The next one above `vma`, or nullptr.
        [[nodiscard]] Attached* after(const Attached& vma) const {
            const std::uint64_t next = vma.range.last().value() + 1;
            return next == 0 ? nullptr : at_or_above(VirtualAddress(next));
        }

        /// The last VMA that begins below `address`, or nullptr.
        [[nodiscard]] Attached* last_before(VirtualAddress address) const {
            Attached* best = nullptr;
            for (const Node* node = root_; node != nullptr;) {
                if (node->vma->range.start() < address) {
                    best = node->vma;
                    node = node->right;
                } else {
                    node = node->left;
                }
            }
            return best;
        }

      private:
        friend class VmaTree;
        friend class Update;

        explicit View(const Node* root) : root_(root) {}

        const Node* root_;
    };

    /// One change of any number of VMAs. No other thread may change the tree meanwhile.
    class Update {
      public:
        explicit Update(VmaTree& tree)
            : tree_(tree), number_(++tree.updates_),
              root_(tree.root_.load(std::memory_order_relaxed)) {}

        /// Destroys an update that was not published.
        ~Update() {
            while (made_ != nullptr)
                Sync::destroy(std::exchange(made_, made_->next));
            while (fresh_ != nullptr)
                Sync::destroy(std::exchange(fresh_, fresh_->next));
        }

        Update(const Update&) = delete;
        Update& operator=(const Update&) = delete;

        [[nodiscard]] View view() const { return View(root_); }

        /// Errors: no_memory; the update is unusable then.
        Result<void> insert(const Vma<Sync>& vma) {
            Attached* const attached = Sync::template make<Attached>(vma, number_);
            if (attached == nullptr)
                return no_memory();
            attached->next = std::exchange(fresh_, attached);
            auto [below, above] = split(root_, vma.range.start());
            Node* const node = make(attached, nullptr, nullptr);
            root_ = join(join(below, node), above);
            return failed_ ? no_memory() : Result<void>();
        }

        /// Removes the VMA that begins at `start`. Errors: no_memory, as insert().
        Result<void> erase(VirtualAddress start) {
            auto [below, rest] = split(root_, start);
            const VirtualAddress next(start.value() + 1);
            auto [own, above] = split(rest, next);
            if (failed_)
                return no_memory();
            MOAT_CHECK(own != nullptr, "what is taken out of the tree is in it");
            if (own->vma->update == number_)
                own->vma->update = unused;
            else
                own->vma->next = std::exchange(leaving_, own->vma);
            forget(own);
            root_ = join(below, above);
            return failed_ ? no_memory() : Result<void>();
        }

        /// Publishes the new tree, then detaches the VMAs that left it: a detached VMA is never in
        /// the published tree. A grace period later they and the old nodes are destroyed.
        void publish() {
            MOAT_CHECK(!failed_, "an update that failed is not published");
            tree_.root_.store(root_, std::memory_order_release);
            for (Attached* vma = leaving_; vma != nullptr; vma = vma->next)
                vma->detach();
            while (leaving_ != nullptr)
                Sync::retire(std::exchange(leaving_, leaving_->next));
            while (replaced_ != nullptr)
                Sync::retire(std::exchange(replaced_, replaced_->next));
            destroy_unused(made_);
            destroy_unused(fresh_);
        }

      private:
        struct Halves {
            Node* below;
            Node* from;
        };

        static std::unexpected<Error> no_memory() {
            return fail(ErrorCode::no_memory, "no memory for a VMA");
        }

        /// Destroys the members of `list` that the new tree does not use.
        template <class Thing>
        static void destroy_unused(Thing*& list) {
            while (list != nullptr) {
                Thing* const thing = std::exchange(list, list->next);
                if (thing->update == unused)
                    Sync::destroy(thing);
            }
        }

        Node* make(Attached* vma, Node* left, Node* right) {
            Node* const node = Sync::template make<Node>(Node{vma, left, right, number_});
            if (node == nullptr) {
                failed_ = true;
                return nullptr;
            }
            node->next = std::exchange(made_, node);
            return node;
        }

        /// A version of `node` to change: itself if this update made it, otherwise a copy.
        Node* own(Node* node) {
            if (failed_ || node->update == number_)
                return node;
            Node* const copy = make(node->vma, node->left, node->right);
            forget(node);
            return copy;
        }

        /// The new tree does not use the node. If the old one does, it is destroyed later.
        void forget(Node* node) {
            if (node->update == number_)
                node->update = unused;
            else
                node->next = std::exchange(replaced_, node);
        }

        /// Splits into the VMAs that begin below `start`, and the others.
        Halves split(Node* node, VirtualAddress start) {
            if (node == nullptr || failed_)
                return {};
            Node* const mine = own(node);
            if (failed_)
                return {};
            if (mine->vma->range.start() < start) {
                const Halves halves = split(mine->right, start);
                mine->right = halves.below;
                return {mine, halves.from};
            }
            const Halves halves = split(mine->left, start);
            mine->left = halves.from;
            return {halves.below, mine};
        }

        /// All of `below` lies below all of `above`.
        Node* join(Node* below, Node* above) {
            if (failed_)
                return nullptr;
            if (below == nullptr || above == nullptr)
                return below == nullptr ? above : below;
            if (weight(below) > weight(above)) {
                Node* const mine = own(below);
                if (failed_)
                    return nullptr;
                mine->right = join(mine->right, above);
                return mine;
            }
            Node* const mine = own(above);
            if (failed_)
                return nullptr;
            mine->left = join(below, mine->left);
            return mine;
        }

        /// Multiplied by a large odd number and mixed: addresses of VMAs differ in high bits.
        static std::uint64_t weight(const Node* node) {
            const std::uint64_t hash = node->vma->range.start().value() * 0x9e37'79b9'7f4a'7c15;
            return (hash ^ hash >> 29) * 0xbf58'476d'1ce4'e5b9;
        }

        static constexpr std::uint64_t unused = 0; ///< updates are numbered from 1

        VmaTree& tree_;
        const std::uint64_t number_;
        Node* root_;
        bool failed_ = false;
        Node* made_ = nullptr;
        Node* replaced_ = nullptr;
        Attached* fresh_ = nullptr;   ///< made here, and not yet published
        Attached* leaving_ = nullptr; ///< in the old tree only
    };

    VmaTree() = default;
    VmaTree(const VmaTree&) = delete;
    VmaTree& operator=(const VmaTree&) = delete;

    /// Frees all. No thread may read or write any more.
    ~VmaTree() { destroy(root_.load(std::memory_order_acquire)); }

    [[nodiscard]] View view() const { return View(root_.load(std::memory_order_acquire)); }

  private:
    static void destroy(Node* node) {
        if (node == nullptr)
            return;
        destroy(node->left);
        destroy(node->right);
        Sync::destroy(node->vma);
        Sync::destroy(node);
    }

    typename Sync::template Atomic<Node*> root_{nullptr};
    std::uint64_t updates_ = 0; ///< used by the one writer
};

} // namespace moat::mm
