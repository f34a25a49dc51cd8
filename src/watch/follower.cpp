// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "follower.hpp"

namespace moat::watch {

class Follower::State {};

Follower::Follower(const FollowerOptions& /*options*/) : state_(std::make_unique<State>()) {}
Follower::Follower(Follower&&) noexcept = default;
Follower& Follower::operator=(Follower&&) noexcept = default;
Follower::~Follower() = default;

} // namespace moat::watch
