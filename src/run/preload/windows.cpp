// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/preload/windows.hpp"

#include <algorithm>

namespace moat::run {

Windows::Mapped Windows::read(const Slot& slot) {
    for (;;) {
        const std::uint32_t before = slot.version.load(std::memory_order_acquire);
        const Mapped mapped = {
            .start = slot.start.load(std::memory_order_relaxed),
            .end = slot.end.load(std::memory_order_relaxed),
            .window = {.device = slot.device.load(std::memory_order_relaxed),
                       .region = slot.region.load(std::memory_order_relaxed),
                       .offset = slot.offset.load(std::memory_order_relaxed)},
            .file = static_cast<File>(slot.file.load(std::memory_order_relaxed)),
        };
        std::atomic_thread_fence(std::memory_order_acquire);
        if (before % 2 == 0 && slot.version.load(std::memory_order_relaxed) == before)
            return mapped;
    }
}

void Windows::write(Slot& slot, const Mapped& mapped) {
    slot.version.fetch_add(1, std::memory_order_acq_rel);
    slot.start.store(mapped.start, std::memory_order_release);
    slot.end.store(mapped.end, std::memory_order_release);
    slot.device.store(mapped.window.device, std::memory_order_release);
    slot.region.store(mapped.window.region, std::memory_order_release);
    slot.offset.store(mapped.window.offset, std::memory_order_release);
    slot.file.store(static_cast<std::uint32_t>(mapped.file), std::memory_order_release);
    slot.version.fetch_add(1, std::memory_order_release);
}

std::optional<Windows::Mapped> Windows::find(std::uint64_t address) const {
    const std::size_t used = used_;
    for (std::size_t i = 0; i < used; ++i) {
        const Mapped mapped = read(slots_[i]);
        if (address >= mapped.start && address < mapped.end)
            return mapped;
    }
    return std::nullopt;
}

bool Windows::overlaps(std::uint64_t start, std::uint64_t end) const {
    const std::size_t used = used_;
    return std::any_of(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(used),
                       [&](const Slot& slot) {
                           const Mapped mapped = read(slot);
                           return mapped.start < end && start < mapped.end;
                       });
}

bool Windows::add(const Mapped& mapped) {
    const std::lock_guard guard(mutex_);
    return add_locked(mapped);
}

bool Windows::add_locked(const Mapped& mapped) {
    for (std::size_t i = 0; i < most; ++i)
        if (slots_[i].end.load(std::memory_order_relaxed) == 0) {
            write(slots_[i], mapped);
            used_ = std::max(used_.load(), i + 1);
            return true;
        }
    return false;
}

std::optional<File> Windows::remove_one(std::uint64_t start, std::uint64_t end) {
    const std::lock_guard guard(mutex_);
    for (std::size_t i = 0; i < used_; ++i) {
        const Mapped old = read(slots_[i]);
        if (old.end <= start || end <= old.start)
            continue;
        const Mapped left = {old.start, start, old.window, old.file};
        const Mapped right = {end, old.end, old.at(end), old.file};
        const bool has_left = old.start < start;
        const bool has_right = end < old.end;
        write(slots_[i], has_left ? left : has_right ? right : Mapped{});
        if (has_left && has_right)
            (void)add_locked(right); // without room, its addresses fault as the program's own
        return old.file;
    }
    return std::nullopt;
}

bool Windows::refers(File file) const {
    const auto end = slots_.begin() + static_cast<std::ptrdiff_t>(used_.load());
    return std::any_of(slots_.begin(), end, [&](const Slot& slot) {
        const Mapped mapped = read(slot);
        return mapped.end != 0 && mapped.file == file;
    });
}

} // namespace moat::run
