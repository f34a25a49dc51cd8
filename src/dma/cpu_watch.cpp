// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Finds AddressSanitizer by weak symbols of its interface (compiler-rt's sanitizer/asan_interface.h
// and allocator_interface.h), so nothing is linked or built for it; and memcheck by its client
// requests, if valgrind's header was present at build time.
#include "moat/dma/detail/cpu_watch.hpp"

#include "moat/dma/detail/interval_index.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define MOAT_MEMCHECK 1
#else
#define MOAT_MEMCHECK 0
#endif

// Names of compiler-rt.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* start, std::size_t size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* start, std::size_t size);
[[gnu::weak]] void* __asan_region_is_poisoned(void* start, std::size_t size);
[[gnu::weak]] const char* __asan_locate_address(void* address, char* name, std::size_t name_size,
                                                void** region, std::size_t* region_size);
[[gnu::weak]] std::size_t __asan_get_alloc_stack(void* address, void** frames, std::size_t most,
                                                 int* thread);
[[gnu::weak]] void* __asan_get_report_address();
[[gnu::weak]] void __asan_set_error_report_callback(void (*callback)(const char*));
[[gnu::weak]] int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void*,
                                                                              std::size_t),
                                                            void (*freed)(const volatile void*));
[[gnu::weak]] std::size_t __sanitizer_get_allocated_size(const volatile void* block);
}

// NOLINTEND(readability-identifier-naming)

namespace moat::dma::cpu_watch {

namespace {

[[nodiscard]] bool asan_present() {
    return __asan_poison_memory_region != nullptr && __asan_unpoison_memory_region != nullptr &&
           __asan_region_is_poisoned != nullptr;
}

[[nodiscard]] bool memcheck_present() {
#if MOAT_MEMCHECK
    const char byte = 0;
    return VALGRIND_MAKE_MEM_DEFINED(&byte, 1) != 0; // -1 from memcheck, 0 from all else
#else
    return false;
#endif
}

[[nodiscard]] std::uint64_t number(const volatile void* address) {
    return reinterpret_cast<std::uintptr_t>(address);
}

/// A running call of `freed`.
struct Call {
    const void* context;
    std::thread::id thread;
};

/// The most bytes of a mapping that are checked: a huge size takes no hours.
constexpr std::size_t most_checked = std::size_t{1} << 30;

/// Every watched mapping of the process, by the CPU's addresses.
struct Index {
    std::mutex mutex;
    IntervalIndex<WatchedMapping> mappings;
    std::atomic<std::size_t> count{0};
    std::vector<Call> calls;
    std::condition_variable call_ended;
};

/// Never destroyed: memory is freed after main returns.
[[nodiscard]] Index& index() {
    static Index* const the_index = new Index;
    return *the_index;
}

/// Whether this thread holds the index's lock, and so allocates and frees for the index.
constinit thread_local bool in_index = false;

class IndexLock {
  public:
    IndexLock() : lock_(index().mutex) { in_index = true; }

    /// Waits until a call of `freed` has ended.
    void wait() { index().call_ended.wait(lock_); }

    ~IndexLock() { in_index = false; }

    IndexLock(const IndexLock&) = delete;
    IndexLock& operator=(const IndexLock&) = delete;

  private:
    std::unique_lock<std::mutex> lock_;
};

[[nodiscard]] HeapBlock heap_block_at(void* address) {
    constexpr std::size_t most_frames = 16;
    static thread_local std::array<std::uintptr_t, most_frames> frames;
    if (__asan_locate_address == nullptr || __asan_get_alloc_stack == nullptr)
        return {};
    std::array<char, 8> unused{};
    void* start = nullptr;
    std::size_t size = 0;
    const char* const kind =
        __asan_locate_address(address, unused.data(), unused.size(), &start, &size);
    if (kind == nullptr || std::string_view(kind) != "heap")
        return {};
    std::array<void*, most_frames> raw{};
    int thread = 0;
    const std::size_t count = __asan_get_alloc_stack(start, raw.data(), raw.size(), &thread);
    for (std::size_t i = 0; i != count; ++i)
        frames[i] = number(raw[i]);
    return {number(start), ByteCount(size), {frames.data(), count}};
}

/// Return: a mapping that overlaps the block, with its call recorded; or nothing.
[[nodiscard]] std::optional<WatchedMapping> begin_call(std::uint64_t first, std::uint64_t last) {
    const IndexLock lock;
    std::optional<WatchedMapping> found;
    (void)index().mappings.find(first, last,
                                [&](std::uint64_t, std::uint64_t, const WatchedMapping& each) {
                                    found = each;
                                    return true;
                                });
    if (found)
        index().calls.push_back({found->context, std::this_thread::get_id()});
    return found;
}

void end_call(const void* context) {
    const IndexLock lock;
    const auto same = [&](const Call& each) {
        return each.context == context && each.thread == std::this_thread::get_id();
    };
    index().calls.erase(std::ranges::find_if(index().calls, same));
    index().call_ended.notify_all();
}

/// Runs inside free(), before the block changes. `freed` runs without a lock, since other threads
/// free memory under locks that it takes.
void block_is_freed(const volatile void* block) {
    if (block == nullptr || in_index || index().count.load(std::memory_order_acquire) == 0)
        return;
    const std::uint64_t first = number(block);
    const std::size_t size = __sanitizer_get_allocated_size(block);
    if (size == 0)
        return;
    while (const auto mapping = begin_call(first, first + size - 1)) {
        mapping->freed(*mapping, heap_block_at(const_cast<void*>(block)));
        unregister_mapping(mapping->memory, mapping->context, mapping->iova);
        end_call(mapping->context);
    }
}

/// Called after the checker's own report.
void name_the_mapping(const char*) {
    if (__asan_get_report_address == nullptr || in_index)
        return;
    const std::uint64_t address = number(__asan_get_report_address());
    const IndexLock lock;
    (void)index().mappings.find(
        address, address, [&](std::uint64_t first, std::uint64_t, const WatchedMapping& each) {
            if (!each.device_writes) // the CPU may read it, so another mapping is concerned
                return false;
            std::fprintf(stderr,
                         "moat: the CPU touched byte %llu of \"%.*s\" (%llu bytes, mapped at IOVA "
                         "0x%llx), which the device owns: call sync_for_cpu or unmap first\n",
                         static_cast<unsigned long long>(address - first),
                         static_cast<int>(each.label.size()), each.label.data(),
                         static_cast<unsigned long long>(each.memory.size()),
                         static_cast<unsigned long long>(each.iova.value()));
            return true;
        });
}

/// Called with the first watched mapping.
void install_hooks() {
    static std::once_flag once;
    std::call_once(once, [] {
        if (__sanitizer_install_malloc_and_free_hooks != nullptr &&
            __sanitizer_get_allocated_size != nullptr)
            (void)__sanitizer_install_malloc_and_free_hooks(
                [](const volatile void*, std::size_t) {}, block_is_freed);
        if (__asan_set_error_report_callback != nullptr)
            __asan_set_error_report_callback(name_the_mapping);
    });
}

/// Return: the first byte that the checker forbids, or nullptr.
[[nodiscard]] void* first_forbidden(std::span<const std::byte> bytes) {
    if (asan_present())
        return __asan_region_is_poisoned(const_cast<std::byte*>(bytes.data()), bytes.size());
#if MOAT_MEMCHECK
    return reinterpret_cast<void*>(
        static_cast<std::uintptr_t>(VALGRIND_CHECK_MEM_IS_ADDRESSABLE(bytes.data(), bytes.size())));
#else
    return nullptr;
#endif
}

/// Return: the last byte of a watched mapping that contains `address`, or nothing.
[[nodiscard]] std::optional<std::uint64_t> last_of_mapping_at(std::uint64_t address) {
    std::optional<std::uint64_t> found;
    const IndexLock lock;
    (void)index().mappings.find(address, address,
                                [&](std::uint64_t, std::uint64_t last, const WatchedMapping&) {
                                    found = last;
                                    return true;
                                });
    return found;
}

} // namespace

bool present() {
    static const bool is_present = asan_present() || memcheck_present();
    return is_present;
}

std::optional<BadMemory> find_inaddressable(std::span<const std::byte> bytes) {
    if (bytes.empty() || !present())
        return std::nullopt;
    const std::uint64_t first = number(bytes.data());
    if (bytes.size() - 1 > ~first || first + bytes.size() == 0) // no memory reaches 2^64
        return BadMemory{.first = first};
    std::span<const std::byte> left = bytes.first(std::min(bytes.size(), most_checked));
    while (void* const bad = left.empty() ? nullptr : first_forbidden(left)) {
        const auto owned_to = last_of_mapping_at(number(bad));
        if (!owned_to)
            return BadMemory{number(bad), asan_present() ? heap_block_at(bad) : HeapBlock{}};
        left = left.subspan(std::min(left.size(), *owned_to - number(left.data()) + 1));
    }
    return std::nullopt;
}

void forbid(CpuWatch watch, std::span<const std::byte> bytes) {
    if (watch == CpuWatch::off || !present())
        return;
    if (asan_present())
        __asan_poison_memory_region(bytes.data(), bytes.size());
#if MOAT_MEMCHECK
    else
        (void)VALGRIND_MAKE_MEM_NOACCESS(bytes.data(), bytes.size());
#endif
}

void allow(CpuWatch watch, std::span<const std::byte> bytes) {
    if (watch == CpuWatch::off || !present())
        return;
    if (asan_present())
        __asan_unpoison_memory_region(bytes.data(), bytes.size());
#if MOAT_MEMCHECK
    else
        (void)VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size());
#endif
}

void register_mapping(const WatchedMapping& mapping) {
    if (!present() || mapping.memory.empty())
        return;
    install_hooks();
    const IndexLock lock;
    const std::uint64_t first = number(mapping.memory.data());
    index().mappings.add(first, first + mapping.memory.size() - 1, mapping);
    index().count.fetch_add(1, std::memory_order_release);
}

void unregister_mapping(std::span<const std::byte> memory, const void* context, Iova iova) {
    if (!present() || memory.empty())
        return;
    const IndexLock lock;
    const std::uint64_t first = number(memory.data());
    index().mappings.remove(first, first + memory.size() - 1, [&](const WatchedMapping& each) {
        const bool found = each.context == context && each.iova == iova;
        if (found)
            index().count.fetch_sub(1, std::memory_order_release);
        return found;
    });
}

void wait_for_calls(const void* context) {
    if (!present())
        return;
    IndexLock lock;
    while (std::ranges::any_of(index().calls, [&](const Call& each) {
        return each.context == context && each.thread != std::this_thread::get_id();
    }))
        lock.wait();
}

} // namespace moat::dma::cpu_watch
