// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "moat/audit/arena.hpp"

#include "moat/audit/plan.hpp"
#include "moat/core/bits.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace moat::audit {

namespace {

constexpr unsigned page_lg2 = 12;
constexpr std::size_t most_resting = 64;
/// Memory that was touched a short while ago is still in caches, ours and a device's.
constexpr std::uint64_t used_before_reuse = std::uint64_t{2} << 20;

/// Addresses begin where no machine has anything else.
constexpr std::uint64_t first_address = std::uint64_t{16} << 20;

constexpr std::size_t page_bytes = Arena::page;

/// Of the page-th page. Bytes have their top bit set, and none is what a soft device strays with
/// (0xa5), so that what was overwritten is counted to the byte; what is written to media has that
/// bit clear.
std::uint64_t canary_of(std::uint64_t canaries, std::size_t page) {
    std::uint64_t canary = mixed(0, canaries + page) | 0x8080808080808080;
    for (unsigned at = 0; at != 64; at += 8)
        if ((canary >> at & 0xff) == 0xa5)
            canary ^= std::uint64_t{1} << at;
    return canary;
}

std::byte canary_byte(std::uint64_t canary, std::size_t at) {
    return static_cast<std::byte>(canary >> 8 * (at % 8));
}

/// Twice as much each time, by what the C library copies fastest with. Memory is of whole pages.
void fill(std::span<std::byte> memory, std::uint64_t canaries) {
    for (std::size_t page = 0; page * page_bytes != memory.size(); ++page) {
        std::byte* const start = memory.data() + page * page_bytes;
        const std::uint64_t canary = canary_of(canaries, page);
        constexpr std::size_t by_words = 64;
        for (std::size_t at = 0; at != by_words; at += sizeof canary)
            std::memcpy(start + at, &canary, sizeof canary);
        for (std::size_t done = by_words; done != page_bytes; done *= 2)
            std::memcpy(start + done, start, done);
    }
}

/// Whether [begin, end), of whole words of a page, is full of its canary: the first line is, and
/// all repeats itself.
bool is_full(const std::byte* page, std::size_t begin, std::size_t end, std::uint64_t canary) {
    constexpr std::size_t line = 64;
    std::size_t at = begin;
    for (; at != end && at != begin + line; at += sizeof canary)
        if (std::memcmp(page + at, &canary, sizeof canary) != 0)
            return false;
    return std::memcmp(page + begin, page + at, end - at) == 0;
}

/// How many of the bytes in [begin, end) of a page are not its canary's.
std::uint64_t changed_in_page(const std::byte* page, std::size_t begin, std::size_t end,
                              std::uint64_t canary) {
    const auto by_bytes = [&](std::size_t from, std::size_t to) {
        std::uint64_t count = 0;
        for (; from < to; ++from)
            count += page[from] != canary_byte(canary, from) ? 1 : 0;
        return count;
    };
    const std::size_t first_word = std::min((begin + 7) & ~std::size_t{7}, end);
    const std::size_t last_word = std::max(first_word, end & ~std::size_t{7});
    const std::uint64_t in_words =
        is_full(page, first_word, last_word, canary) ? 0 : by_bytes(first_word, last_word);
    return by_bytes(begin, first_word) + in_words + by_bytes(last_word, end);
}

std::uint64_t changed(std::span<const std::byte> memory, std::size_t begin, std::size_t end,
                      std::uint64_t canaries) {
    std::uint64_t count = 0;
    while (begin < end) {
        const std::size_t page = begin / page_bytes;
        const std::size_t start = page * page_bytes;
        const std::size_t page_end = std::min(start + page_bytes, end);
        count += changed_in_page(memory.data() + start, begin - start, page_end - start,
                                 canary_of(canaries, page));
        begin = page_end;
    }
    return count;
}

} // namespace

Result<Arena> Arena::create(machine::Machine& machine, machine::Domain& domain,
                            const ArenaConfig& config) {
    auto memory = machine.allocate(config.memory);
    if (!memory)
        return std::unexpected(memory.error());
    std::optional<machine::SharedMemory> decoys;
    if (config.decoys == Decoys::at_physical_addresses) {
        auto window = machine.allocate(config.window);
        if (!window)
            return std::unexpected(window.error());
        decoys.emplace(std::move(*window));
    }
    return Arena(domain, config, std::move(*memory), std::move(decoys));
}

Arena::Arena(machine::Domain& domain, const ArenaConfig& config, machine::SharedMemory memory,
             std::optional<machine::SharedMemory> decoys)
    : domain_(&domain),
      guard_(align_up(std::max<std::uint64_t>(config.guard.value(), 1), page_lg2)),
      seed_(config.seed), memory_(std::move(memory)), decoys_(std::move(decoys)),
      window_start_(decoys_ ? decoys_->physical().value() : first_address),
      window_end_(window_start_ + config.window.value()), next_address_(window_start_),
      kept_address_(window_start_), highest_address_(window_start_) {}

/// Others in each lap: a device that keeps what it read beyond a buffer may write it there again.
std::uint64_t Arena::canaries_of_memory(std::uint64_t offset, std::uint64_t lap) const {
    return mixed(seed_, lap) + offset / page;
}

std::uint64_t Arena::canaries_of_decoys(std::uint64_t offset) const {
    return mixed(seed_, 0) + offset / page;
}

/// What lay to rest there is full of canaries already.
void Arena::fill_up_to(std::uint64_t end, std::span<std::byte> memory, std::uint64_t& filled,
                       std::uint64_t canaries) {
    if (end <= filled)
        return;
    fill(memory.subspan(filled, end - filled), canaries);
    filled = end;
}

void Arena::begin_operation() {
    if (next_offset_ - kept_offset_ <= used_before_reuse &&
        next_address_ - kept_address_ <= (window_end_ - kept_address_) / 2)
        return;
    // All that rests gives way at once; it lay there with the canaries of the lap that begins.
    look_at_all(changed_before_);
    resting_.clear();
    ++lap_;
    ready_ = next_offset_;
    next_address_ = kept_address_;
    next_offset_ = kept_offset_;
}

Result<Placed> Arena::place(const Need& need, dma::Placement placement, Life life,
                            std::uint64_t case_number) {
    const unsigned aligned_lg2 = std::max(need.alignment_lg2, page_lg2);
    const std::uint64_t bytes = need.size.value();
    const std::uint64_t room = align_up(std::max<std::uint64_t>(bytes, 1), page_lg2);
    const std::uint64_t start = align_up(next_address_ + guard_.value(), aligned_lg2);
    const std::uint64_t at = next_offset_;
    if (bytes == 0 || start + room + guard_.value() > window_end_ ||
        at + room > memory_.size().value())
        return fail(ErrorCode::no_space, "the buffer does not fit the audit's memory",
                    {"size", bytes});
    Placed placed{.label = need.what,
                  .direction = need.direction,
                  .pages = IovaRange(Iova(start), ByteCount(room)),
                  .memory = memory_.bytes().subspan(at, room),
                  .canaries = canaries_of_memory(at, lap_),
                  .case_number = case_number};
    const std::uint64_t offset =
        placement == dma::Placement::left ? 0 : align_down(room - bytes, need.alignment_lg2);
    placed.range = IovaRange(Iova(start + offset), need.size);
    PhysicalAddress physical(memory_.physical().value() + at);
    if (decoys_) {
        const auto here = decoys_->bytes().subspan(start - window_start_, room);
        if (life == Life::operation) {
            placed.decoy = here;
            placed.decoy_canaries = canaries_of_decoys(start - window_start_);
        } else {
            // Queues lie where a device finds them that goes past the IOMMU, so that it starts.
            placed.memory = here;
            placed.canaries = canaries_of_decoys(start - window_start_);
            physical = PhysicalAddress(start);
        }
        fill_up_to(start - window_start_ + room, decoys_->bytes(), decoys_filled_,
                   canaries_of_decoys(decoys_filled_));
    }
    fill_up_to(at + room, memory_.bytes(), ready_, canaries_of_memory(ready_, lap_));
    if (life == Life::driver)
        std::ranges::fill(placed.bytes(), std::byte{0});
    if (const auto mapped = domain_->map(Iova(start), ByteCount(room), physical,
                                         dma::attributes_of(need.direction));
        !mapped)
        return std::unexpected(mapped.error());
    next_address_ = start + room;
    highest_address_ = std::max(highest_address_, next_address_);
    next_offset_ = at + room;
    if (life == Life::driver) {
        kept_address_ = next_address_;
        kept_offset_ = next_offset_;
    }
    return placed;
}

Changed Arena::look(const Placed& placed) {
    const std::size_t begin = placed.offset();
    const std::size_t end = begin + placed.range.size().value();
    return {.before = changed(placed.memory, 0, begin, placed.canaries),
            .after = changed(placed.memory, end, placed.memory.size(), placed.canaries),
            .decoy = changed(placed.decoy, 0, placed.decoy.size(), placed.decoy_canaries)};
}

std::uint64_t Arena::unwritten_at_end(const Placed& placed, ByteCount of) {
    const std::size_t begin = placed.offset();
    const std::size_t end = begin + std::min(placed.range.size(), of).value();
    std::size_t at = end;
    while (at != begin && placed.memory[at - 1] ==
                              canary_byte(canary_of(placed.canaries, (at - 1) / page), at - 1))
        --at;
    return end - at;
}

Result<void> Arena::unmap(const Placed& placed) {
    return domain_->unmap(placed.pages.start(), placed.pages.size());
}

void Arena::lay_to_rest(Placed placed, const Changed& seen) {
    if (const auto offset =
            static_cast<std::uint64_t>(placed.memory.data() - memory_.bytes().data());
        offset < memory_.size().value()) // and not among the decoys
        placed.canaries = canaries_of_memory(offset, lap_ + 1);
    fill(placed.memory, placed.canaries);
    if (seen.decoy != 0)
        fill(placed.decoy, placed.decoy_canaries);
    if (resting_.size() == most_resting) {
        look_at(resting_.front(), changed_before_);
        resting_.pop_front();
    }
    resting_.push_back(placed);
}

void Arena::give_back(const Placed& placed) {
    fill(placed.memory, placed.canaries);
}

void Arena::look_at(Placed& placed, std::vector<ChangedAtRest>& found) {
    Changed seen = look(placed);
    const std::size_t begin = placed.offset();
    seen.inside =
        changed(placed.memory, begin, begin + placed.range.size().value(), placed.canaries);
    if (seen.around() + seen.inside + seen.decoy == 0)
        return;
    found.push_back({placed, seen});
    fill(placed.memory, placed.canaries);
    fill(placed.decoy, placed.decoy_canaries);
}

void Arena::look_at_last(std::vector<ChangedAtRest>& found) {
    found.insert(found.end(), changed_before_.begin(), changed_before_.end());
    changed_before_.clear();
    if (!resting_.empty())
        look_at(resting_.back(), found);
}

void Arena::look_at_all(std::vector<ChangedAtRest>& found) {
    if (&found != &changed_before_) {
        found.insert(found.end(), changed_before_.begin(), changed_before_.end());
        changed_before_.clear();
    }
    for (Placed& placed : resting_)
        look_at(placed, found);
}

void Arena::start_over() {
    look_at_all(changed_before_); // puts right what the next driver's buffers are to lie in
    resting_.clear();
    // Other addresses than before, so that those of a driver that ended are told from these.
    if (highest_address_ - window_start_ > (window_end_ - window_start_) / 2)
        highest_address_ = window_start_;
    kept_address_ = next_address_ = highest_address_;
    next_offset_ = kept_offset_ = 0;
    lap_ += 2;
    ready_ = 0;
}

} // namespace moat::audit
