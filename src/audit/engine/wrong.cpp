// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "wrong.hpp"

#include "moat/core/bits.hpp"

#include "platform/try.hpp"

#include <algorithm>
#include <map>

namespace moat::audit {

/// Unmaps too early, or without invalidation.
class Injector::WrongDomain final : public machine::ForwardingDomain<machine::Domain> {
  public:
    /// `keeps`: the IOMMU invalidates at once, so leaves stay mapped for a while, as in a cache.
    WrongDomain(Injector& injector, machine::Domain& inner, bool keeps)
        : ForwardingDomain(inner), injector_(injector), keeps_(keeps) {
        injector_.domain_ = this;
    }

    ~WrongDomain() override { injector_.domain_ = nullptr; }

    [[nodiscard]] Result<void> map(Iova start, ByteCount size, PhysicalAddress memory,
                                   Attributes attributes) override {
        if (injector_.wrong_.what == Injection::late)
            mapped_[start] = size;
        MOAT_TRY(unmap_kept(IovaRange(start, size)));
        return inner().map(start, size, memory, attributes);
    }

    [[nodiscard]] Result<void> unmap(Iova start, ByteCount size) override {
        if (injector_.wrong_.what == Injection::late)
            mapped_.erase(start);
        if (injector_.wrong_.what != Injection::no_invalidate)
            return inner().unmap(start, size);
        if (!keeps_)
            return inner().unmap_deferred(start, size);
        kept_.push_back(IovaRange(start, size));
        return kept_.size() <= most_kept ? Result<void>() : unmap_kept(kept_.front());
    }

    /// Posted writes arrive before the unmap, and the device acts on them after it.
    void unmap_doomed() {
        const auto doomed = std::exchange(injector_.doomed_, std::nullopt);
        const auto after = doomed ? mapped_.upper_bound(*doomed) : mapped_.begin();
        if (after == mapped_.begin())
            return;
        const auto [start, size] = *std::prev(after);
        if (doomed->value() - start.value() < size.value() && inner().unmap(start, size))
            ++injector_.injected_;
    }

  private:
    static constexpr std::size_t most_kept = 64;

    Result<void> unmap_kept(IovaRange where) {
        for (std::size_t at = 0; at != kept_.size();) {
            const IovaRange each = kept_[at];
            if (!each.overlaps(where)) {
                ++at;
                continue;
            }
            kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(at));
            MOAT_TRY(inner().unmap(each.start(), each.size()));
        }
        return {};
    }

    Injector& injector_;
    const bool keeps_;
    std::vector<IovaRange> kept_;
    std::map<Iova, ByteCount> mapped_;
};

/// Changes requests before they reach the device's driver.
class Injector::WrongDriver final : public Driver {
  public:
    WrongDriver(Injector& injector, std::unique_ptr<Driver> inner)
        : Driver(inner->name(), inner->operations()), injector_(injector),
          inner_(std::move(inner)) {}

    ~WrongDriver() override {
        if (injector_.misbehave_)
            injector_.misbehave_(Injection::none);
    }

    [[nodiscard]] std::vector<Need> lists_for(const Request& request) const override {
        return inner_->lists_for(changed(request));
    }

  private:
    [[nodiscard]] Result<Answer> do_run(const Request& request) override;
    [[nodiscard]] Request changed(Request request) const;

    Injector& injector_;
    std::unique_ptr<Driver> inner_;
    Iova previous_;
};

/// As far as the operation supports it.
Request Injector::WrongDriver::changed(Request request) const {
    const Wrong& wrong = injector_.wrong_;
    if (injector_.misbehave_ && wrong.what != Injection::short_buffer)
        return request; // the device does wrong
    if (request.length == ByteCount(0))
        return request;
    const auto all = operations();
    const Operation& operation = all[request.operation];
    const std::uint64_t granule = operation.granule.value();
    const ByteCount bytes((wrong.bytes + granule - 1) / granule * granule);
    switch (wrong.what) {
    case Injection::underrun:
        request.data = Iova(request.data.value() - std::min(request.data.value(), bytes.value()));
        [[fallthrough]];
    case Injection::overrun:
    case Injection::short_buffer:
        if (bytes <= operation.longest && request.length <= operation.longest - bytes)
            request.length += bytes;
        break;
    case Injection::stale:
    case Injection::no_invalidate:
        request.data = previous_ != Iova() ? previous_ : request.data;
        break;
    case Injection::read_only: {
        const auto opposite = std::ranges::find_if(all, [&](const Operation& each) {
            return each.direction != operation.direction && each.has_length(request.length);
        });
        if (operation.direction != Direction::from_device && opposite != all.end())
            request.operation = static_cast<unsigned>(opposite - all.begin());
        break;
    }
    case Injection::short_transfer:
        if (request.length > bytes && request.length - bytes >= operation.shortest)
            request.length = request.length - bytes;
        break;
    case Injection::late:
    case Injection::none:
        break;
    }
    return request;
}

Result<Answer> Injector::WrongDriver::do_run(const Request& request) {
    if (injector_.misbehave_)
        injector_.misbehave_(injector_.wrong_.what);
    else if (injector_.wrong_.what == Injection::late && request.length != ByteCount(0))
        injector_.doomed_ = request.data;
    const Request told = changed(request);
    const bool same = told.data == request.data && told.length == request.length &&
                      told.operation == request.operation;
    injector_.injected_ += same ? 0 : 1;
    if (request.length != ByteCount(0))
        previous_ = request.data;
    return inner_->run(told);
}

void Injector::apply_to(AuditOptions& options, const machine::Machine& machine) {
    if (wrong_.what == Injection::none)
        return;
    options.wrap_domain = [this, keeps = machine.name() == "soft"](machine::Domain& domain) {
        return std::make_unique<WrongDomain>(*this, domain, keeps);
    };
    options.probe = [this](Seat seat) -> Result<std::unique_ptr<Driver>> {
        seat.before_wait = [this] {
            if (domain_ != nullptr)
                domain_->unmap_doomed();
        };
        MOAT_LET(auto driver, audit::probe(seat));
        return std::make_unique<WrongDriver>(*this, std::move(driver));
    };
}

} // namespace moat::audit
