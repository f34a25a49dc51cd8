// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The IOVA allocator under commands in plain text, against the interval model of its tests. So an
// input that fails can be read, cut and typed:
//
//     c 1 0 1000        set up: granule (12 + 2 n bits), guard before, after
//     a 3000            allocate;  n 3000 15  aligned to 2^15;  m 3000 ffffff  below a mask
//     x 3000 40000      at an address
//     r 0               release the 0th live range;  q 0  after the next invalidation
//     w 0 1000          release it with 1000 bytes more;  z 12345000  release what may not exist
//     f                 flush;  t 1000  let time pass;  v 80000 1000  reserve;  o  rest
//
// Numbers are hexadecimal, a line ends a command, and what is not understood is skipped.
#include "moat/iova/allocator.hpp"
#include "moat/sync/serial.hpp"

#include "../tests/iova/model.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace moat;
using namespace moat::iova;

using Subject = Allocator<SerialSync>;

constexpr std::uint64_t aperture_bytes = std::uint64_t{1} << 40;

void require(bool condition, const char* what) {
    if (condition)
        return;
    std::fprintf(stderr, "violated: %s\n", what);
    std::abort();
}

/// Up to four numbers after the command's letter.
struct Command {
    char letter = 0;
    std::array<std::uint64_t, 4> number{};
    std::size_t numbers = 0;
};

Command parse(std::string_view line) {
    Command command;
    if (line.empty())
        return command;
    command.letter = line.front();
    bool inside = false;
    for (const char c : line.substr(1)) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) {
            inside = false;
            continue;
        }
        if (!std::exchange(inside, true) && ++command.numbers > command.number.size()) {
            command.numbers = command.number.size();
            break;
        }
        std::uint64_t& number = command.number[command.numbers - 1];
        number = number << 4 | static_cast<unsigned>(digit);
    }
    return command;
}

class Session {
  public:
    explicit Session(const Command& set_up) {
        granule_lg2_ = 12 + 2 * static_cast<unsigned>(set_up.number[0] % 3);
        const Guard guard{ByteCount(set_up.number[1] % (1 << 20)),
                          ByteCount(set_up.number[2] % (1 << 20))};
        const IovaRange aperture(Iova(0), ByteCount(aperture_bytes));
        const QuarantineBudget quarantine{ByteCount((set_up.number[0] >> 4) << 12), 16, 5000};
        auto made =
            Subject::create({.aperture = {&aperture, 1},
                             .granule_lg2 = granule_lg2_,
                             .guard = guard,
                             .quarantine = quarantine,
                             .invalidation = {[](void*) { return Result<void>(); }, nullptr},
                             .flush_delay_nanoseconds = 100});
        require(made.has_value(), "creation");
        subject_ = std::move(*made);
        free_ = subject_->stats().free;
        model_.emplace(GuardPages(guard, granule_lg2_).both() << page_lg2,
                       std::uint64_t{1} << granule_lg2_);
    }

    void run(const Command& command) {
        const ByteCount size(command.number[0]);
        switch (command.letter) {
        case 'a':
            return accept(subject_->allocate({.size = size}), size);
        case 'n':
            return accept(
                subject_->allocate(
                    {.size = size, .placement = Congruence::aligned(command.number[1] % 64)}),
                size);
        case 'm':
            return accept(subject_->allocate({.size = size, .last = Iova(command.number[1])}),
                          size);
        case 'x':
            return accept(subject_->allocate({.size = size, .at = Iova(command.number[1])}), size);
        case 'r':
            return release(command.number[0], When::now);
        case 'q':
            return release(command.number[0], When::after_invalidation);
        case 'w':
            return release_wrongly(command);
        case 'z':
            return release_anything(command);
        case 'f':
            return require(subject_->flush().has_value(), "no invalidation fails");
        case 't':
            return SerialSync::advance(command.number[0] % 100'000);
        case 'v':
            return reserve(command);
        case 'o':
            return subject_->rest();
        default:
            return;
        }
    }

    void finish() {
        while (!live_.empty())
            release(0, When::now);
        require(subject_->flush().has_value(), "no invalidation fails");
        // Takes back what is cached or in quarantine; after a success, all of it came back.
        if (const auto all = subject_->allocate({.size = ByteCount(aperture_bytes)}))
            require(subject_->release(*all, ByteCount(aperture_bytes)).has_value(), "release");
        else
            require(subject_->stats().free + reserved_ == free_, "everything came back");
        require(subject_->stats().live_ranges == 0, "nothing lives at the end");
    }

  private:
    struct Live {
        Iova start;
        ByteCount size;
    };

    void accept(const Result<Iova>& got, ByteCount size) {
        if (got) {
            require(model_->check(got->value(), size.value()).empty(), "no overlap, guards empty");
            model_->add(got->value(), size.value());
            live_.push_back({*got, size});
        }
        check_sums();
    }

    void release(std::uint64_t index, When when) {
        if (live_.empty())
            return;
        const auto chosen = live_.begin() + static_cast<std::ptrdiff_t>(index % live_.size());
        const Live gone = *chosen;
        live_.erase(chosen);
        model_->remove(gone.start.value());
        require(subject_->release(gone.start, gone.size, when).has_value(), "a release");
        require(!subject_->release(gone.start, gone.size).has_value(), "a double free is found");
        check_sums();
    }

    void release_wrongly(const Command& command) {
        if (live_.empty())
            return;
        const Live& any = live_[command.number[0] % live_.size()];
        const ByteCount wrong(any.size.value() + (command.number[1] % (1 << 30)));
        if (model_->rounded(wrong.value()) == model_->rounded(any.size.value()))
            return;
        require(!subject_->release(any.start, wrong).has_value(), "another size is found");
        check_sums();
    }

    void release_anything(const Command& command) {
        const Iova at(command.number[0]);
        if (std::ranges::none_of(live_, [&](const Live& each) { return each.start == at; }))
            require(!subject_->release(at, ByteCount(command.number[1])).has_value(),
                    "what does not live is not released");
        check_sums();
    }

    void reserve(const Command& command) {
        const std::uint64_t start = command.number[0] % aperture_bytes;
        const ByteCount before = everything();
        if (subject_->reserve(IovaRange(Iova(start), ByteCount(1 + command.number[1] % (1 << 24)))))
            reserved_ += before - everything();
        require(everything() + reserved_ == free_, "a reservation that failed took nothing");
        check_sums();
    }

    /// Everything is somewhere.
    void check_sums() {
        const Stats stats = subject_->stats();
        require(stats.live.value() == model_->bytes(), "the live bytes");
        require(everything() + reserved_ == free_, "each page is somewhere");
    }

    [[nodiscard]] ByteCount everything() {
        const Stats stats = subject_->stats();
        return stats.free + stats.live + stats.cached + stats.quarantined + stats.queued +
               stats.guard;
    }

    unsigned granule_lg2_ = 12;
    Subject::Owner subject_;
    std::optional<iova::testing::Model> model_;
    std::vector<Live> live_;
    ByteCount free_{};
    ByteCount reserved_{};
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    std::optional<Session> session;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        const Command command = parse(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (!session)
            session.emplace(command.letter == 'c' ? command : Command{});
        if (command.letter != 'c')
            session->run(command);
    }
    if (session)
        session->finish();
    return 0;
}
