// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "wrong.hpp"

#include "moat/core/bits.hpp"

#include <algorithm>

namespace moat::audit {

/// Forwards to a domain of the inner machine.
class WrongMachine::OwnDomain final : public machine::Domain {
  public:
    OwnDomain(WrongMachine& machine, std::unique_ptr<machine::Domain> inner)
        : machine_(machine), inner_(std::move(inner)) {}

    ~OwnDomain() override { machine_.domain_ = nullptr; }

    [[nodiscard]] machine::Domain& inner() { return *inner_; }

    [[nodiscard]] const iommu::DomainLimits& limits() const override { return inner_->limits(); }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        if (machine_.wrong_.what == Injection::late)
            mapped_[start] = size;
        if (const auto done = unmap_kept(IovaRange(start, size)); !done)
            return done;
        return inner_->map(start, size, memory, attributes);
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        if (machine_.wrong_.what == Injection::late)
            mapped_.erase(start);
        if (machine_.wrong_.what != Injection::no_invalidate)
            return inner_->unmap(start, size);
        if (machine_.name() != "soft")
            return inner_->unmap_deferred(start, size);
        kept_.push_back(IovaRange(start, size));
        return kept_.size() <= most_kept ? Result<void>() : unmap_kept(kept_.front());
    }

    void unmap_around(Iova address) {
        const auto after = mapped_.upper_bound(address);
        if (after == mapped_.begin())
            return;
        const auto found = std::prev(after);
        if (address.value() - found->first.value() >= found->second.value())
            return;
        if (inner_->unmap(found->first, found->second))
            machine_.note_wronged();
    }

  private:
    /// The soft IOMMU invalidates at once. Leaves stay mapped for a while, as in a cache.
    static constexpr std::size_t most_kept = 64;

    Result<void> unmap_kept(IovaRange where) {
        for (std::size_t at = 0; at != kept_.size();) {
            const IovaRange each = kept_[at];
            if (!each.overlaps(where)) {
                ++at;
                continue;
            }
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(at));
            if (const auto done = inner_->unmap(each.start(), each.size()); !done)
                return done;
        }
        return {};
    }

    WrongMachine& machine_;
    std::vector<IovaRange> kept_;
    std::unique_ptr<machine::Domain> inner_;
    std::map<Iova, ByteCount> mapped_;
};

Result<std::unique_ptr<machine::Domain>> WrongMachine::create_domain() {
    auto inner = inner_.create_domain();
    if (!inner)
        return inner;
    auto made = std::make_unique<OwnDomain>(*this, std::move(*inner));
    domain_ = made.get();
    return made;
}

Result<void> WrongMachine::attach(machine::Bdf function, machine::Domain& domain) {
    return inner_.attach(function, dynamic_cast<OwnDomain&>(domain).inner());
}

/// Posted writes arrive before the unmap, and the device acts on them after it.
machine::Wait WrongMachine::wait_until(FunctionRef<bool()> happened,
                                       std::chrono::nanoseconds longest) {
    if (doomed_ && domain_ != nullptr)
        domain_->unmap_around(*std::exchange(doomed_, std::nullopt));
    return inner_.wait_until(happened, longest);
}

/// Adds `bytes` to the length, as far as the operation supports it.
Request WrongDriver::longer(Request request, std::uint64_t bytes) const {
    const Operation& operation = inner_->operations()[request.operation];
    const std::uint64_t granule = operation.granule.value();
    const std::uint64_t more = (bytes + granule - 1) / granule * granule;
    if (more <= operation.longest.value() &&
        request.length.value() <= operation.longest.value() - more)
        request.length += ByteCount(more);
    return request;
}

/// The first operation in the other direction that has this length.
Request WrongDriver::opposite(Request request) const {
    const auto operations = inner_->operations();
    const Direction direction = operations[request.operation].direction;
    if (direction == Direction::from_device)
        return request;
    for (unsigned index = 0; index != operations.size(); ++index) {
        const Operation& each = operations[index];
        if (each.direction != direction && request.length <= each.longest &&
            request.length >= each.shortest && request.length.value() % each.granule.value() == 0) {
            request.operation = index;
            return request;
        }
    }
    return request;
}

Request WrongDriver::changed(Request request) const {
    if (before_each_ && wrong_.what != Injection::short_buffer)
        return request; // the device does wrong
    if (request.length == ByteCount(0))
        return request;
    const Operation& operation = inner_->operations()[request.operation];
    const std::uint64_t granule = operation.granule.value();
    const std::uint64_t bytes = (wrong_.bytes + granule - 1) / granule * granule;
    switch (wrong_.what) {
    case Injection::overrun:
    case Injection::short_buffer:
        return longer(request, wrong_.bytes);
    case Injection::underrun:
        request.data = Iova(request.data.value() - std::min(request.data.value(), bytes));
        return longer(request, wrong_.bytes);
    case Injection::stale:
    case Injection::no_invalidate:
        if (previous_ != Iova())
            request.data = previous_;
        return request;
    case Injection::read_only:
        return opposite(request);
    case Injection::short_transfer:
        if (request.length.value() > bytes &&
            request.length.value() - bytes >= operation.shortest.value())
            request.length = request.length - ByteCount(bytes);
        return request;
    case Injection::late:
    case Injection::none:
        break;
    }
    return request;
}

Result<Answer> WrongDriver::run(const Request& request) {
    if (before_each_)
        before_each_(wrong_.what);
    else if (wrong_.what == Injection::late && request.length != ByteCount(0))
        machine_.unmap_at_next_wait(request.data);
    const Request told = changed(request);
    const bool same = told.data == request.data && told.length == request.length &&
                      told.operation == request.operation;
    if (!same)
        machine_.note_wronged();
    if (request.length != ByteCount(0))
        previous_ = request.data;
    return inner_->run(told);
}

} // namespace moat::audit
