// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// FunctionRef: a reference to a callable; two words, no allocation. The callable must outlive it.
#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

namespace moat {

template <class Signature>
class FunctionRef;

template <class R, class... Args>
class FunctionRef<R(Args...)> {
  public:
    template <class F>
        requires(!std::same_as<std::remove_cvref_t<F>, FunctionRef> &&
                 std::is_invocable_r_v<R, F&, Args...>)
    // Implicit, like a reference.
    constexpr FunctionRef(F& callable) // NOLINT(google-explicit-constructor)
        : callable_(const_cast<void*>(static_cast<const void*>(std::addressof(callable)))),
          call_([](void* target, Args... args) -> R {
              return (*static_cast<F*>(target))(std::forward<Args>(args)...);
          }) {}

    constexpr R operator()(Args... args) const {
        return call_(callable_, std::forward<Args>(args)...);
    }

  private:
    void* callable_;
    R (*call_)(void*, Args...);
};

} // namespace moat
