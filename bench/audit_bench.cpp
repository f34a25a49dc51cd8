// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an audit with full checking costs: on QEMU's devices and behind each of its IOMMUs, beside
// the bare round trips that it is made of, and on the soft machine. Without QEMU its rows are left
// out.
#include "audit/audit.hpp"
#include "audit/contents.hpp"
#include "audit/subject.hpp"
#include "harness.hpp"
#include "machine/qemu/qemu_machine.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <optional>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using Clock = std::chrono::steady_clock;
using machine::qemu::IommuModel;
using machine::qemu::QemuIommu;

/// Random cases, past those at boundaries, which have many of megabytes.
constexpr std::uint64_t first_case = 1 << 20;
constexpr std::uint64_t soft_cases = 400'000;
constexpr int repetitions = 9;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

std::unique_ptr<audit::Subject> start(std::string_view machine, std::string_view device = "nvme",
                                      IommuModel iommu = IommuModel::intel) {
    audit::Kind kind = *std::ranges::find_if(audit::kinds(), [&](const audit::Kind& each) {
        return each.machine == machine && each.name == device;
    });
    kind.iommu = iommu;
    auto subject = audit::Subject::start(kind, {});
    return subject ? std::move(*subject) : nullptr;
}

audit::DeviceReport run(audit::Subject& subject, std::uint64_t first, std::uint64_t count) {
    audit::AuditOptions options = subject.options();
    options.first_case = first;
    options.end_case = first + count;
    auto report = audit::audit_function(subject.machine(), subject.address(), options);
    MOAT_CHECK(report && report->findings.empty() && report->tally.cases == count,
               "good devices stay inside");
    return std::move(*report);
}

/// The number of the audit's domain in a unit.
constexpr std::uint16_t only_domain = 1;

/// Return: false if the IOMMU is another one.
template <class Iommu>
bool invalidate_by(QemuIommu& iommu, const InvalidationRequest<Iova>& request) {
    auto* const driven = dynamic_cast<Iommu*>(&iommu);
    if (driven == nullptr)
        return false;
    MOAT_CHECK(driven->unit().invalidate(only_domain, {&request, 1}).has_value(),
               "QEMU's unit invalidates");
    return true;
}

/// A virtio-iommu has requests for maps and unmaps in place of invalidations. `what` is a buffer of
/// the audit's own, which lies at its physical address.
void map_again(QemuIommu& iommu, const audit::Buffer& what) {
    auto& unit = dynamic_cast<machine::qemu::VirtioIommu&>(iommu).unit();
    const IovaRange range(what.iova, ByteCount(what.bytes.size()));
    constexpr std::uint32_t domain = 0; // the first
    MOAT_CHECK(unit.unmap(domain, range).has_value() &&
                   unit.map(domain, range, PhysicalAddress(what.iova.value()),
                            Attributes::read | Attributes::write)
                       .has_value(),
               "QEMU's virtio-iommu maps");
}

/// The round trips of an audit's operations and nothing else: the same commands on memory that
/// stays mapped, as many invalidations, as many looks at the fault status. What the device and the
/// unit do for a command is in both loops; placing, mapping, canaries and the judge are in the
/// audit's alone.
class BareLoop {
  public:
    explicit BareLoop(audit::Subject& subject) : subject_(subject) {}

    /// The audit's own driver is lent to the loop, with memory that it does not touch otherwise.
    void share_driver(audit::AuditOptions& options) {
        options.probe = [this](const audit::Seat& seat) {
            auto driver = audit::probe(seat);
            MOAT_CHECK(driver.has_value(), "QEMU's device starts");
            driver_ = driver->get();
            const auto obtain = [&](std::string_view what, ByteCount size) {
                const auto got =
                    seat.buffers.obtain({.what = what, .size = size, .alignment_lg2 = 12});
                MOAT_CHECK(got.has_value(), "the audit's memory has room");
                return *got;
            };
            data_ = obtain("bare data", ByteCount(std::uint64_t{4} << 20)); // AHCI's longest
            lists_ = obtain("bare lists", ByteCount(8192));
            plan_.emplace((*driver)->operations(), audit::Placements::both, seed,
                          (*driver)->medium());
            return driver;
        };
    }

    /// Cases [first, end).
    void run(std::uint64_t first, std::uint64_t end) {
        for (; first != end; ++first)
            run(plan_->at(first));
    }

    static constexpr std::uint64_t seed = 1;

  private:
    void run(const audit::Case& about) {
        audit::Request request{.operation = about.operation,
                               .data = data_.iova,
                               .length = about.length,
                               .position = about.position};
        // The audit's next loads find what the audit stored.
        if (driver_->operations()[about.operation].content == audit::Content::stores)
            audit::Contents::fill(data_.bytes.first(about.length.value()), driver_->medium(),
                                  about);
        const auto needs = driver_->lists_for(request);
        if (!needs.empty())
            request.lists = {&lists_, 1};
        const auto answer = driver_->run(request);
        MOAT_CHECK(answer && answer->verdict == audit::Verdict::success, "memory is mapped");
        if (about.length != ByteCount(0))
            invalidate(data_, about.length);
        for (const audit::Need& need : needs)
            invalidate(lists_, need.size);
        auto none = [](const fault::Record&) {};
        keep(iommu().take_faults(none));
    }

    void invalidate(const audit::Buffer& what, ByteCount size) {
        const std::uint64_t last = (what.iova.value() + size.value() - 1) | 0xfff;
        const InvalidationRequest<Iova> request{.start = what.iova, .last = Iova(last)};
        if (!invalidate_by<machine::qemu::VtdIommu>(iommu(), request) &&
            !invalidate_by<machine::qemu::AmdIommu>(iommu(), request) &&
            !invalidate_by<machine::qemu::SmmuIommu>(iommu(), request))
            map_again(iommu(), lists_);
    }

    QemuIommu& iommu() { return subject_.qemu()->iommu(); }

    audit::Subject& subject_;
    audit::Driver* driver_ = nullptr;
    audit::Buffer data_{};
    audit::Buffer lists_{};
    std::optional<audit::Plan> plan_;
};

struct Measured {
    double audit = 0; ///< operations a second
    double bare = 0;
    double reads = 0; ///< as many reads of a register, in operations a second
    audit::Tally tally = {};
};

/// Slices of the audit, of the bare loop and of reads take turns, some milliseconds each: what the
/// machine does meanwhile, it does to all.
class Slices {
  public:
    static constexpr std::uint64_t most = 61;

    /// `slices`: of which the medians are.
    explicit Slices(audit::Subject& subject, std::uint64_t slices = most)
        : subject_(subject), slices_(slices), bare_(subject) {}

    Measured measure() {
        audit::AuditOptions options = subject_.options();
        options.first_case = first_case;
        options.end_case = first_case + slices_ * slice;
        options.seed = BareLoop::seed;
        bare_.share_driver(options);
        options.goes_on = [&](const audit::Tally& tally) {
            if (tally.cases % slice == 0)
                end_slice(tally.cases);
            return true;
        };
        begin_ = Clock::now();
        auto report = audit::audit_function(subject_.machine(), subject_.address(), options);
        MOAT_CHECK(report && report->findings.empty(), "QEMU's device stays inside");
        return {median(audit_), median(bare_times_), median(reads_), report->tally};
    }

  private:
    static constexpr std::uint64_t slice = 256;

    void end_slice(std::uint64_t cases) {
        const double audited = seconds_since(begin_);
        const auto& qtest = subject_.qemu()->qtest();
        const std::uint64_t before = qtest.round_trips();
        auto begin = Clock::now();
        bare_.run(first_case + cases - slice, first_case + cases);
        const double bare = seconds_since(begin);
        auto none = [](const fault::Record&) {};
        // A doorbell is answered as well.
        const std::uint64_t trips = qtest.round_trips() - before + slice;
        begin = Clock::now();
        for (std::uint64_t each = 0; each != trips; ++each)
            keep(subject_.qemu()->iommu().take_faults(none));
        const double read = seconds_since(begin);
        audit_.push_back(slice / audited);
        bare_times_.push_back(slice / bare);
        reads_.push_back(slice / read);
        begin_ = Clock::now();
    }

    audit::Subject& subject_;
    const std::uint64_t slices_;
    BareLoop bare_;
    Clock::time_point begin_;
    std::vector<double> audit_;
    std::vector<double> bare_times_;
    std::vector<double> reads_;
};

double measure_soft(audit::Subject& subject) {
    const auto begin = Clock::now();
    keep(run(subject, first_case, soft_cases));
    return soft_cases / seconds_since(begin);
}

/// Both in turn.
struct Both {
    Measured qemu;
    double soft;
};

Both measure(audit::Subject* qemu) {
    const auto soft = start("soft");
    std::vector<Measured> all;
    std::vector<double> soft_rates;
    for (int each = 0; each != repetitions; ++each) {
        if (qemu != nullptr)
            all.push_back(Slices(*qemu).measure());
        soft_rates.push_back(measure_soft(*soft));
    }
    const auto middle = [&](double Measured::* value) {
        std::vector<double> values;
        for (const Measured& each : all)
            values.push_back(each.*value);
        return values.empty() ? 0 : median(values);
    };
    Both both{.qemu = {.audit = middle(&Measured::audit),
                       .bare = middle(&Measured::bare),
                       .reads = middle(&Measured::reads)},
              .soft = median(soft_rates)};
    if (!all.empty())
        both.qemu.tally = all.back().tally;
    return both;
}

void report_start(Suite& suite) {
    std::vector<double> times;
    for (int each = 0; each != repetitions; ++each) {
        const auto begin = Clock::now();
        const auto subject = start("qemu");
        keep(run(*subject, 0, 1));
        times.push_back(1e3 * seconds_since(begin));
    }
    suite.report({.name = "QEMU: start to the end of the first operation",
                  .value = median(times),
                  .unit = "ms"});
}

void report_round_trips(Suite& suite, const audit::Tally& tally) {
    const auto per_operation = [&](std::uint64_t trips) {
        return static_cast<double>(trips) / static_cast<double>(tally.cases);
    };
    const auto row = [&](const char* purpose, double value, std::optional<double> goal) {
        suite.report({.name = std::string("QEMU NVMe: round trips an operation, ") + purpose,
                      .value = value,
                      .unit = "trips",
                      .goal = goal});
    };
    const auto& trips = tally.round_trips;
    const std::uint64_t all = std::accumulate(trips.begin(), trips.end(), tally.cases);
    row("doorbell and completion", 1, std::nullopt);
    row("mapping", per_operation(trips[0]), std::nullopt);
    row("looks at the controller, and the completion's doorbell", per_operation(trips[1]),
        std::nullopt);
    row("invalidation", per_operation(trips[2]), std::nullopt);
    row("fault status", per_operation(trips[3]), std::nullopt);
    row("all", per_operation(all), 4);
}

/// Beside the bare loop of the same device behind the same IOMMU.
void report_device(Suite& suite, std::string_view device, IommuModel iommu) {
    const std::string name = "QEMU " + std::string(device) + " behind " +
                             std::string(machine::qemu::name(iommu)) + ": operations";
    if (!suite.wants(name))
        return;
    const auto subject = start("qemu", device, iommu);
    if (subject == nullptr) {
        std::fprintf(stderr, "bench_audit: QEMU does not start; no row \"%s\"\n", name.c_str());
        return;
    }
    constexpr std::uint64_t slices = 31; // the first ones touch new memory
    const Measured measured = Slices(*subject, slices).measure();
    suite.report({.name = name,
                  .value = measured.audit,
                  .unit = "1/s",
                  .against = "a bare loop of the same qtest round trips",
                  .against_value = measured.bare,
                  .better = Better::higher,
                  .goal = 0.7});
}

/// Without hda and edu, whose operations take as long as their clocks say, and pvscsi, which does
/// not stay inside (docs/findings.md).
void report_devices(Suite& suite) {
    for (const IommuModel iommu :
         {IommuModel::intel, IommuModel::amd, IommuModel::smmuv3, IommuModel::virtio})
        for (const std::string_view device :
             {"nvme", "virtio-blk", "virtio-blk-packed", "virtio-scsi", "virtio-net", "ahci",
              "e1000", "e1000e", "vmxnet3", "xhci", "sdhci"})
            report_device(suite, device, iommu);
}

} // namespace

int main(int argc, char** argv) {
    Suite suite("audit", argc, argv);
    if (suite.only_counts())
        return suite.finish();
    const auto subject = start("qemu");
    const Both both = measure(subject.get());
    if (subject == nullptr) {
        std::fputs("bench_audit: QEMU is not installed; its rows are left out\n", stderr);
        suite.report({.name = "soft NVMe: operations, full checking",
                      .value = both.soft,
                      .unit = "1/s",
                      .better = Better::higher});
        return suite.finish();
    }
    report_start(suite);
    suite.report({.name = "QEMU NVMe: operations, full checking",
                  .value = both.qemu.audit,
                  .unit = "1/s",
                  .against = "a bare loop of the same qtest round trips",
                  .against_value = both.qemu.bare,
                  .better = Better::higher,
                  .goal = 0.7});
    suite.report({.name = "QEMU NVMe: operations, beside reads",
                  .value = both.qemu.audit,
                  .unit = "1/s",
                  .against = "as many reads of a register, which no device works for",
                  .against_value = both.qemu.reads,
                  .better = Better::higher});
    suite.report({.name = "soft NVMe: operations, full checking",
                  .value = both.soft,
                  .unit = "1/s",
                  .against = "the same on QEMU's",
                  .against_value = both.qemu.audit,
                  .better = Better::higher,
                  .goal = 50});
    report_round_trips(suite, both.qemu.tally);
    report_devices(suite);
    return suite.finish();
}
