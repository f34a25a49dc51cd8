// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A machine and a driver that inject errors: wrappers of the real ones. Only subject.cpp uses them.
#pragma once

#include "audit/subject.hpp"

#include <functional>
#include <map>

namespace moat::audit {

/// Forwards; can unmap too early or without invalidation.
class WrongMachine final : public machine::Machine {
  public:
    WrongMachine(machine::Machine& inner, const Wrong& wrong) : inner_(inner), wrong_(wrong) {}

    /// How many errors were injected.
    [[nodiscard]] std::uint64_t wronged() const { return wronged_; }

    void note_wronged() { ++wronged_; }

    /// Makes the next wait begin by unmapping what contains `address`.
    void unmap_at_next_wait(Iova address) { doomed_ = address; }

    [[nodiscard]] std::string_view name() const override { return inner_.name(); }

    [[nodiscard]] std::span<const machine::FunctionInfo> functions() const override {
        return inner_.functions();
    }

    [[nodiscard]] Result<std::unique_ptr<machine::Function>> open(machine::Bdf address) override {
        return inner_.open(address);
    }

    [[nodiscard]] Result<std::unique_ptr<machine::Domain>> create_domain() override;
    [[nodiscard]] Result<void> attach(machine::Bdf function, machine::Domain& domain) override;

    [[nodiscard]] Result<void> detach(machine::Bdf function) override {
        return inner_.detach(function);
    }

    [[nodiscard]] Result<machine::SharedMemory> allocate(ByteCount size,
                                                         unsigned alignment_lg2) override {
        return inner_.allocate(size, alignment_lg2);
    }

    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)> each) override {
        return inner_.take_faults(each);
    }

    [[nodiscard]] machine::Wait wait_until(FunctionRef<bool()> happened,
                                           std::chrono::nanoseconds longest) override;

    void do_meanwhile(FunctionRef<void()> work) override { inner_.do_meanwhile(work); }

    void finish_meanwhile() override { inner_.finish_meanwhile(); }

    [[nodiscard]] std::chrono::nanoseconds now() override { return inner_.now(); }

    [[nodiscard]] Result<void> health() const override { return inner_.health(); }

  private:
    class OwnDomain;

    machine::Machine& inner_;
    const Wrong wrong_;
    OwnDomain* domain_ = nullptr;
    std::optional<Iova> doomed_;
    std::uint64_t wronged_ = 0;
};

/// Changes requests before they reach the device's driver.
class WrongDriver final : public Driver {
  public:
    /// `before_each` is called before each operation and may make the device misbehave.
    WrongDriver(std::unique_ptr<Driver> inner, WrongMachine& machine, const Wrong& wrong,
                std::function<void(Injection)> before_each)
        : inner_(std::move(inner)), machine_(machine), wrong_(wrong),
          before_each_(std::move(before_each)) {}

    ~WrongDriver() override {
        if (before_each_)
            before_each_(Injection::none);
    }

    [[nodiscard]] std::string_view name() const override { return inner_->name(); }

    [[nodiscard]] std::span<const Operation> operations() const override {
        return inner_->operations();
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override {
        return inner_->lists_for(changed(request));
    }

    [[nodiscard]] Result<Answer> run(const Request& request) override;

  private:
    [[nodiscard]] Request changed(Request request) const;
    [[nodiscard]] Request longer(Request request, std::uint64_t bytes) const;
    [[nodiscard]] Request opposite(Request request) const;

    std::unique_ptr<Driver> inner_;
    WrongMachine& machine_;
    const Wrong wrong_;
    std::function<void(Injection)> before_each_;
    Iova previous_;
};

} // namespace moat::audit
