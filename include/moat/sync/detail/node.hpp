// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A value behind room for its deferred call, so that retiring it needs no memory. Only the models
// of the Sync concept use it, for make, destroy and retire.
#pragma once

#include "moat/sync/concept.hpp"

#include <cstddef>
#include <new>
#include <utility>

namespace moat {

template <class T>
class RetirableNode {
  public:
    /// Return: the value, or nullptr without memory.
    template <class... Args>
    [[nodiscard]] static T* make(Args&&... args) {
        auto* const node = new (std::nothrow) RetirableNode(std::forward<Args>(args)...);
        return node == nullptr ? nullptr : &node->value_;
    }

    /// Destroys what `make` returned; `value` may be null.
    static void destroy(T* value) {
        if (value != nullptr)
            delete of(value);
    }

    /// The head in front of `value`, for `destroy_head`.
    [[nodiscard]] static RcuHead* head(T* value) { return &of(value)->head_; }

    static void destroy_head(RcuHead* head) { delete reinterpret_cast<RetirableNode*>(head); }

  private:
    template <class... Args>
    explicit RetirableNode(Args&&... args) : value_(std::forward<Args>(args)...) {}

    static RetirableNode* of(T* value) {
        constexpr std::size_t offset = (sizeof(RcuHead) + alignof(T) - 1) / alignof(T) * alignof(T);
        return reinterpret_cast<RetirableNode*>(reinterpret_cast<unsigned char*>(value) - offset);
    }

    RcuHead head_;
    T value_;
};

} // namespace moat
