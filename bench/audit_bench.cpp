// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What an audit with full checking costs: on QEMU beside the bare round trips that it is made of,
// and on the soft machine. Without QEMU its rows are left out.
#include "moat/audit/audit.hpp"
#include "moat/audit/subject.hpp"

#include "harness.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <vector>

namespace {

using namespace moat;
using namespace moat::bench;
using Clock = std::chrono::steady_clock;

/// Random cases, past those at boundaries, which have many of megabytes.
constexpr std::uint64_t first_case = 1 << 20;
constexpr std::uint64_t cases = 2000;
constexpr int repetitions = 9;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

std::unique_ptr<audit::Subject> start(std::string_view machine) {
    const auto kind = std::ranges::find_if(audit::kinds(), [&](const audit::Kind& each) {
        return each.machine == machine && each.name == "nvme";
    });
    auto subject = audit::Subject::start(*kind, {});
    return subject ? std::move(*subject) : nullptr;
}

audit::DeviceReport run(audit::Subject& subject, std::uint64_t first, std::uint64_t count) {
    audit::AuditOptions options = subject.options();
    options.first_case = first;
    options.end_case = first + count;
    auto report = audit::audit_function(subject.machine(), subject.address(), options);
    MOAT_CHECK(report && report->findings.empty() && report->tally.cases == count,
               "QEMU's and our own NVMe stay inside");
    return std::move(*report);
}

/// As many reads of a register as the audit's operations take.
void bare_round_trips(audit::Subject& subject, std::uint64_t count) {
    auto& unit = subject.qemu()->unit();
    auto none = [](const fault::Record&) {};
    for (; count != 0; --count)
        keep(unit.take_faults(none));
}

struct Measured {
    double audit = 0; ///< operations a second
    double bare = 0;
    audit::Tally tally;
};

Measured measure_qemu(audit::Subject& subject) {
    Measured measured;
    std::vector<double> audit_rates;
    std::vector<double> bare_rates;
    for (int each = 0; each != repetitions; ++each) {
        auto begin = Clock::now();
        const audit::DeviceReport report = run(subject, first_case, cases);
        audit_rates.push_back(cases / seconds_since(begin));
        measured.tally = report.tally;
        const auto& trips = report.tally.round_trips;
        const std::uint64_t all = std::accumulate(trips.begin(), trips.end(), cases);
        begin = Clock::now();
        bare_round_trips(subject, all);
        bare_rates.push_back(cases / seconds_since(begin));
    }
    measured.audit = median(audit_rates);
    measured.bare = median(bare_rates);
    return measured;
}

double measure_soft() {
    const auto subject = start("soft");
    std::vector<double> rates;
    for (int each = 0; each != repetitions; ++each) {
        const auto begin = Clock::now();
        keep(run(*subject, first_case, 10 * cases));
        rates.push_back(10 * cases / seconds_since(begin));
    }
    return median(rates);
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

} // namespace

int main(int argc, char** argv) {
    Suite suite("audit", argc, argv);
    if (suite.only_counts())
        return suite.finish();
    const double soft = measure_soft();
    const auto subject = start("qemu");
    if (subject == nullptr) {
        std::fputs("bench_audit: QEMU is not installed; its rows are left out\n", stderr);
        suite.report({.name = "soft NVMe: operations, full checking",
                      .value = soft,
                      .unit = "1/s",
                      .better = Better::higher});
        return suite.finish();
    }
    report_start(suite);
    const Measured qemu = measure_qemu(*subject);
    suite.report({.name = "QEMU NVMe: operations, full checking",
                  .value = qemu.audit,
                  .unit = "1/s",
                  .against = "a bare loop of as many qtest round trips",
                  .against_value = qemu.bare,
                  .better = Better::higher,
                  .goal = 0.7});
    suite.report({.name = "soft NVMe: operations, full checking",
                  .value = soft,
                  .unit = "1/s",
                  .against = "the same on QEMU's",
                  .against_value = qemu.audit,
                  .better = Better::higher,
                  .goal = 50});
    report_round_trips(suite, qemu.tally);
    return suite.finish();
}
