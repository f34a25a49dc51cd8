// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Injector: makes an audit's domain and driver do wrong, by wrappers of the real ones. Only
// subject.cpp uses it.
#pragma once

#include "audit/subject.hpp"

#include <functional>
#include <optional>

namespace moat::audit {

class Injector {
  public:
    /// `misbehave` is called before each operation and may make the device misbehave; empty if only
    /// the driver can do wrong.
    Injector(const Wrong& wrong, std::function<void(Injection)> misbehave)
        : wrong_(wrong), misbehave_(std::move(misbehave)) {}

    /// Sets the hooks of an audit of `machine`, which this outlives. Nothing without an injection.
    void apply_to(AuditOptions& options, const machine::Machine& machine);

    /// How many errors were injected, except those that the device committed.
    [[nodiscard]] std::uint64_t injected() const { return injected_; }

  private:
    class WrongDomain;
    class WrongDriver;

    const Wrong wrong_;
    const std::function<void(Injection)> misbehave_;
    std::uint64_t injected_ = 0;
    WrongDomain* domain_ = nullptr;
    std::optional<Iova> doomed_; ///< an address that the next wait begins by unmapping
};

} // namespace moat::audit
