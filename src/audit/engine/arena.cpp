// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "audit/arena.hpp"

#include "moat/core/bits.hpp"

#include "audit/plan.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <cwchar>
#include <utility>

namespace moat::audit {

namespace {

constexpr unsigned page_lg2 = 12;
constexpr std::size_t most_retired = 64;
/// Reusing memory sooner would find it in caches, ours and a device's.
constexpr std::uint64_t used_before_reuse = std::uint64_t{512} << 10;
/// Addresses wait longer than memory, but not until their decoys have left the caches: the next
/// lap would read each from memory.
constexpr std::uint64_t guards_before_reuse = 2048;

/// No machine has anything else at the addresses from here on.
constexpr std::uint64_t first_address = std::uint64_t{16} << 20;
constexpr std::uint64_t most_window = std::uint64_t{1} << 40;

constexpr std::uint64_t of_decoys = 0; ///< a lap that memory never has
constexpr std::size_t page_bytes = Arena::page;
constexpr std::size_t line = 64;

/// Marks canaries beside a buffer that the device reads: it may read and keep them.
constexpr std::uint64_t beside_read = std::uint64_t{1} << 63;

/// The canary of one page: four bytes, repeated. All have their top bit set, which data written to
/// media has not, so overwritten bytes are counted exactly. Only those beside a buffer that the
/// device reads have the next bit set. None is 0xa5, which soft devices write when they stray.
std::uint32_t canary_of(std::uint64_t canaries, std::size_t page) {
    constexpr std::uint32_t top_bits = 0x80808080;
    constexpr std::uint32_t next_bits = top_bits >> 1;
    constexpr std::uint32_t strays = 0xa5a5a5a5;
    const auto random = static_cast<std::uint32_t>(mixed(0, canaries + page));
    const std::uint32_t canary =
        (random & ~next_bits) | top_bits | ((canaries & beside_read) != 0 ? next_bits : 0);
    const std::uint32_t without_top = (canary ^ strays) & ~top_bits;
    const std::uint32_t is_stray = ~(without_top + ~top_bits) & top_bits; // one bit per byte
    return canary ^ is_stray >> 7;
}

std::byte canary_byte(std::uint32_t canary, std::size_t at) {
    return static_cast<std::byte>(canary >> 8 * (at % 4));
}

std::byte canary_at(const Placed& placed, std::size_t at) {
    return canary_byte(canary_of(placed.canaries, at / page_bytes), at);
}

/// wmemset fills with words of four bytes as fast as memset with bytes.
void fill_page(std::span<std::byte> memory, std::uint64_t canaries, std::size_t page) {
    static_assert(sizeof(wchar_t) == sizeof(std::uint32_t));
    std::byte* const start = memory.data() + page * page_bytes;
    std::wmemset(reinterpret_cast<wchar_t*>(start), static_cast<wchar_t>(canary_of(canaries, page)),
                 page_bytes / sizeof(wchar_t));
}

/// `memory` is whole pages.
void fill(std::span<std::byte> memory, std::uint64_t canaries) {
    for (std::size_t page = 0; page * page_bytes != memory.size(); ++page)
        fill_page(memory, canaries, page);
}

void fill_red_zones(const Placed& placed) {
    const std::size_t last = placed.memory.size() / page_bytes - 1;
    if (placed.offset() != 0)
        fill_page(placed.memory, placed.canaries, 0);
    if (placed.end() != placed.memory.size() && (placed.offset() == 0 || last != 0))
        fill_page(placed.memory, placed.canaries, last);
}

/// Whether memory repeats the canary: compares its first line with the canary, the rest with
/// itself.
bool is_full(std::span<const std::byte> memory, std::uint32_t four_bytes) {
    const std::byte* const start = memory.data();
    const std::uint64_t canary = four_bytes | std::uint64_t{four_bytes} << 32;
    const std::size_t words = std::min(memory.size(), line) / sizeof canary * sizeof canary;
    for (std::size_t at = 0; at != words; at += sizeof canary)
        if (std::memcmp(start + at, &canary, sizeof canary) != 0)
            return false;
    if (memory.size() > line)
        return std::memcmp(start, start + line, memory.size() - line) == 0;
    return memory.size() == words ||
           std::memcmp(start + words, &canary, memory.size() - words) == 0;
}

/// How many bytes of one page, from `begin` on, differ from its canary.
std::uint64_t changed_in_page(std::span<const std::byte> memory, std::size_t begin,
                              std::uint32_t canary) {
    const std::uint32_t turned = std::rotr(canary, static_cast<int>(8 * (begin % 4)));
    if (is_full(memory, turned))
        return 0;
    std::uint64_t count = 0;
    for (std::size_t at = 0; at != memory.size(); ++at)
        count += memory[at] != canary_byte(turned, at) ? 1 : 0;
    return count;
}

std::uint64_t changed(std::span<const std::byte> memory, std::size_t begin, std::size_t end,
                      std::uint64_t canaries) {
    std::uint64_t count = 0;
    while (begin < end) {
        const std::size_t page = begin / page_bytes;
        const std::size_t page_end = std::min((page + 1) * page_bytes, end);
        count += changed_in_page(memory.subspan(begin, page_end - begin), begin,
                                 canary_of(canaries, page));
        begin = page_end;
    }
    return count;
}

} // namespace

Result<Arena> Arena::create(machine::Machine& machine, machine::Domain& domain,
                            const ArenaConfig& config) {
    if (config.window.value() > most_window)
        return fail(ErrorCode::out_of_range, "an audit's window is at most 1 TiB",
                    {"window", config.window.value()});
    if (config.guard > config.window)
        return fail(ErrorCode::out_of_range, "the guard is longer than the audit's window",
                    {"guard", config.guard.value()}, {"window", config.window.value()});
    MOAT_LET(auto memory, machine.allocate(config.memory));
    std::optional<machine::SharedMemory> decoys;
    if (config.decoys != Decoys::none) {
        MOAT_LET(auto window, machine.allocate(config.window));
        decoys.emplace(std::move(window));
    }
    return Arena(domain, config, std::move(memory), std::move(decoys));
}

Arena::Arena(machine::Domain& domain, const ArenaConfig& config, machine::SharedMemory memory,
             std::optional<machine::SharedMemory> decoys)
    : domain_(&domain),
      guard_(align_up(std::max<std::uint64_t>(config.guard.value(), 1), page_lg2)),
      in_place_(config.decoys == Decoys::in_place),
      margin_(in_place_ || config.guards == Guards::canaries ? guard_.value() : 0),
      seed_(config.seed), memory_(std::move(memory)), decoys_(std::move(decoys)),
      window_start_(decoys_ ? decoys_->physical().value() : first_address),
      window_end_(window_start_ + config.window.value()), next_address_(window_start_),
      kept_address_(window_start_), highest_address_(window_start_) {}

/// Laps differ: a device may write back what it read beyond a buffer in an earlier lap.
std::uint64_t Arena::canaries_at(std::uint64_t offset, std::uint64_t lap) const {
    return (mixed(seed_, lap) + offset / page) & ~beside_read;
}

/// Retired buffers have filled their memory already.
void Arena::fill_up_to(std::uint64_t end, std::span<std::byte> memory, std::uint64_t& filled,
                       std::uint64_t canaries) {
    if (end <= filled)
        return;
    fill(memory.subspan(filled, end - filled), canaries);
    filled = end;
}

void Arena::begin_operation() {
    const bool memory_is_due = next_offset_ - kept_offset_ > used_before_reuse;
    const std::uint64_t most_addresses =
        std::min((window_end_ - kept_address_) / 2, guards_before_reuse * guard_.value());
    const bool addresses_are_due = next_address_ - kept_address_ > most_addresses;
    if (addresses_are_due)
        next_address_ = kept_address_;
    if (!memory_is_due && !addresses_are_due)
        return;
    // All retired buffers leave at once; they already have the canaries of the next lap.
    look_at_all(changed_before_);
    retired_.clear();
    ++lap_;
    ready_ = next_offset_;
    next_offset_ = kept_offset_;
}

Result<Placed> Arena::place(const Need& need, dma::Placement placement, Life life,
                            std::uint64_t case_number) {
    const unsigned aligned_lg2 = std::max(need.alignment_lg2, page_lg2);
    const std::uint64_t bytes = need.size.value();
    if (bytes > memory_.size().value() || bit(std::min(aligned_lg2, 63U)) > most_window)
        return fail(ErrorCode::no_space, "the buffer does not fit the audit's memory",
                    {"size", bytes}, {"alignment_lg2", need.alignment_lg2});
    const std::uint64_t room = align_up(std::max<std::uint64_t>(bytes, 1), page_lg2);
    const std::uint64_t start = align_up(next_address_ + guard_.value(), aligned_lg2);
    const std::uint64_t at = next_offset_;
    const std::uint64_t first = start - margin_;
    const std::uint64_t pages = room + 2 * margin_;
    const std::uint64_t taken = in_place_ ? room : pages; // of `memory_`
    if (bytes == 0 || start + room + guard_.value() > window_end_ ||
        at + taken > memory_.size().value())
        return fail(ErrorCode::no_space, "the buffer does not fit the audit's memory",
                    {"size", bytes}, {"alignment_lg2", need.alignment_lg2});
    Placed placed{.label = need.what,
                  .direction = need.direction,
                  .pages = IovaRange(Iova(first), ByteCount(pages)),
                  .memory = memory_.bytes().subspan(at, taken),
                  .canaries = canaries_at(at, lap_),
                  .case_number = case_number};
    const std::uint64_t offset =
        placement == dma::Placement::left ? 0 : align_down(room - bytes, need.alignment_lg2);
    placed.range = IovaRange(Iova(start + offset), need.size);
    PhysicalAddress physical(memory_.physical().value() + at);
    if (decoys_) {
        const auto here = decoys_->bytes().subspan(first - window_start_, pages);
        const std::uint64_t canaries = canaries_at(first - window_start_, of_decoys);
        if (life == Life::operation && !in_place_) {
            placed.decoy = here;
            placed.decoy_canaries = canaries;
        } else {
            // A device that bypasses the IOMMU finds its queues here, so that it can start.
            placed.memory = here;
            placed.canaries = canaries;
            physical = PhysicalAddress(first);
        }
        fill_up_to(first - window_start_ + pages, decoys_->bytes(), decoys_filled_,
                   canaries_at(decoys_filled_, of_decoys));
    }
    fill_up_to(at + taken, memory_.bytes(), ready_, canaries_at(ready_, lap_));
    if (life == Life::driver) {
        std::ranges::fill(placed.bytes(), std::byte{0});
    } else if (need.direction == Direction::to_device && !in_place_) {
        placed.canaries |= beside_read;
        if (margin_ == 0)
            fill_red_zones(placed);
        else
            fill(placed.memory, placed.canaries);
    }
    MOAT_TRY(map(placed, physical));
    next_address_ = start + room + margin_;
    highest_address_ = std::max(highest_address_, next_address_);
    next_offset_ = at + taken;
    if (life == Life::driver) {
        kept_address_ = next_address_;
        kept_offset_ = next_offset_;
    }
    return placed;
}

/// A device may write to guards of canaries even if it may only read the buffer.
Result<void> Arena::map(const Placed& placed, PhysicalAddress physical) {
    const ByteCount margin(margin_);
    const ByteCount room = placed.pages.size() - margin - margin;
    const Iova start = placed.pages.start();
    if (margin_ != 0) {
        MOAT_TRY(domain_->map(start, margin, physical, read_write));
        MOAT_TRY(domain_->map(start + margin + room, margin, physical + margin + room, read_write));
    }
    return domain_->map(start + margin, room, physical + margin,
                        dma::attributes_of(placed.direction));
}

Changed Arena::look(const Placed& placed) {
    Changed seen = look_beside(placed);
    seen.decoy = changed(placed.decoy, 0, placed.decoy.size(), placed.decoy_canaries);
    return seen;
}

Changed Arena::look_beside(const Placed& placed) {
    return {.before = changed(placed.memory, 0, placed.offset(), placed.canaries),
            .after = changed(placed.memory, placed.end(), placed.memory.size(), placed.canaries)};
}

Changed Arena::look_at_ended(const Placed& placed) {
    const std::size_t begin = std::min(placed.offset(), placed.decoy.size());
    const std::size_t end = std::min(begin + line, placed.decoy.size());
    const bool is_quiet = changed(placed.decoy, begin, end, placed.decoy_canaries) == 0;
    return is_quiet ? look_beside(placed) : look(placed);
}

Changed Arena::glance(const Placed& placed) {
    const std::size_t begin = placed.offset();
    const std::size_t end = placed.end();
    const std::size_t before = std::min(begin, line);
    const std::size_t after = std::min(placed.memory.size() - end, line);
    const bool is_quiet = changed(placed.memory, begin - before, begin, placed.canaries) == 0 &&
                          changed(placed.memory, end, end + after, placed.canaries) == 0;
    return is_quiet ? Changed{} : look(placed);
}

void Arena::restore_around(const Placed& placed) {
    for (std::size_t at = 0; at != placed.memory.size(); ++at)
        if (at < placed.offset() || at >= placed.end())
            placed.memory[at] = canary_at(placed, at);
}

std::uint64_t Arena::unwritten_at_end(const Placed& placed, ByteCount of) {
    const std::size_t begin = placed.offset();
    const std::size_t end = begin + std::min(placed.range.size(), of).value();
    std::size_t at = end;
    while (at != begin && placed.memory[at - 1] == canary_at(placed, at - 1))
        --at;
    return end - at;
}

Result<void> Arena::unmap(const Placed& placed) {
    return domain_->unmap(placed.pages.start(), placed.pages.size());
}

void Arena::retire(Placed placed, const Changed& seen) {
    if (const auto offset =
            static_cast<std::uint64_t>(placed.memory.data() - memory_.bytes().data());
        offset < memory_.size().value()) // and not in the decoys
        placed.canaries = canaries_at(offset, lap_ + 1);
    fill(placed.memory, placed.canaries);
    if (seen.decoy != 0)
        fill(placed.decoy, placed.decoy_canaries);
    if (retired_.size() == most_retired) {
        look_at(retired_.front(), changed_before_);
        retired_.pop_front();
    }
    retired_.push_back(placed);
}

void Arena::release(const Placed& placed) {
    fill(placed.memory, placed.canaries);
}

void Arena::look_at(Placed& placed, std::vector<Inspected>& found) {
    const std::uint64_t all = changed(placed.memory, 0, placed.memory.size(), placed.canaries);
    if (all + changed(placed.decoy, 0, placed.decoy.size(), placed.decoy_canaries) == 0)
        return;
    Changed seen = look(placed);
    seen.inside = all - seen.around();
    found.push_back({placed, seen});
    fill(placed.memory, placed.canaries);
    fill(placed.decoy, placed.decoy_canaries);
}

void Arena::take_changed_before(std::vector<Inspected>& found) {
    if (&found == &changed_before_)
        return;
    found.insert(found.end(), changed_before_.begin(), changed_before_.end());
    changed_before_.clear();
}

void Arena::glance_at_last(std::vector<Inspected>& found) {
    take_changed_before(found);
    if (retired_.empty())
        return;
    Placed& last = retired_.back();
    const std::size_t begin = last.offset();
    const std::size_t end = begin + std::min<std::size_t>(line, last.range.size().value());
    if (changed(last.memory, begin, end, last.canaries) != 0)
        look_at(last, found);
}

void Arena::look_at_all(std::vector<Inspected>& found) {
    take_changed_before(found);
    for (Placed& placed : retired_)
        look_at(placed, found);
}

void Arena::start_over() {
    look_at_all(changed_before_); // restores the memory of the next driver's buffers
    retired_.clear();
    // New addresses distinguish the buffers of ended drivers from these.
    if (highest_address_ - window_start_ > (window_end_ - window_start_) / 2)
        highest_address_ = window_start_;
    kept_address_ = next_address_ = highest_address_;
    next_offset_ = kept_offset_ = 0;
    lap_ += 2;
    ready_ = 0;
}

} // namespace moat::audit
