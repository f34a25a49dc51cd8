// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Frame: metadata of one 4 KiB page frame. The FrameStore concept: provides the bytes of tables and
// RAM, and the frames' metadata. HeapStore is one model; the explorer's arena and a guest's memory
// have their own.
#pragma once

#include "moat/core/types.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/concept.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace moat::mm {

inline constexpr unsigned frame_lg2 = 12;
inline constexpr unsigned pmd_lg2 = 21;
inline constexpr unsigned pud_lg2 = 30;

/// Blocks of frames are 2^0 .. 2^18 of them: up to 1 GiB.
inline constexpr unsigned most_order = pud_lg2 - frame_lg2;

/// Metadata of one frame of RAM, or of device memory with page structs: 16 bytes. Frames are
/// allocated in blocks. The first frame counts the references to the whole block, which is freed
/// when the last one goes.
template <SyncPolicy Sync>
struct Frame {
    template <class T>
    using Atomic = typename Sync::template Atomic<T>;

    static constexpr std::uint8_t no_order = 0xff;
    static constexpr std::uint8_t dirty = 1;
    static constexpr std::uint8_t anonymous = 2;

    /// Of the whole block: one for each leaf that maps a part of it, one for each pin.
    Atomic<std::uint32_t> references{0};
    /// Of the block in use that begins here, or `no_order`.
    Atomic<std::uint8_t> order{no_order};
    Atomic<std::uint8_t> flags{0};
    std::uint8_t node = 0;
    /// Of the free block that begins here, or `no_order`; with the links, guarded by its node.
    std::uint8_t free_order = no_order;
    std::uint32_t next = 0;
    std::uint32_t previous = 0;
};

template <class S>
concept FrameStore = requires(S& store, std::uint64_t count, std::uint64_t offset) {
    typename S::Sync;
    // The number of free frames that each thread may cache; 0: none.
    { S::cached_frames } -> std::convertible_to<unsigned>;
    // The tables' memory, aligned to a page; and a header for each page of it.
    { store.tables() } -> std::same_as<std::span<std::byte>>;
    { store.headers() } -> std::same_as<std::span<TableHeader>>;
    // Default-initialised metadata for `count` frames, valid as long as the store; empty if memory
    // is exhausted. Called once for RAM and once for each region with page structs.
    { store.frames(count) } -> std::same_as<std::span<Frame<typename S::Sync>>>;
    // Zeroes [offset, offset + count) of RAM, if the store keeps contents.
    store.clear(offset, count);
};

/// Tables and metadata on the heap. RAM's contents lie in a buffer of the caller's; without one,
/// pages have no contents.
template <SyncPolicy SyncType>
class HeapStore {
  public:
    using Sync = SyncType;
    static constexpr unsigned cached_frames = 64;

    explicit HeapStore(ByteCount tables, std::span<std::byte> ram = {})
        : table_bytes_(tables.value()),
          tables_(static_cast<std::byte*>(
              ::operator new(table_bytes_, std::align_val_t{std::size_t{1} << frame_lg2}))),
          headers_(table_bytes_ >> frame_lg2), ram_(ram) {}

    HeapStore(HeapStore&&) noexcept = default;

    [[nodiscard]] std::span<std::byte> tables() const { return {tables_.get(), table_bytes_}; }

    [[nodiscard]] std::span<TableHeader> headers() { return headers_; }

    [[nodiscard]] std::span<Frame<Sync>> frames(std::uint64_t count) {
        frames_.emplace_back(new (std::nothrow) Frame<Sync>[count]);
        return {frames_.back().get(), frames_.back() ? count : 0};
    }

    void clear(std::uint64_t offset, std::uint64_t count) const {
        if (!ram_.empty())
            std::memset(ram_.data() + offset, 0, count);
    }

    /// RAM's contents, or nullptr without a buffer.
    [[nodiscard]] std::byte* ram() const { return ram_.empty() ? nullptr : ram_.data(); }

  private:
    struct Free {
        void operator()(std::byte* bytes) const {
            ::operator delete(bytes, std::align_val_t{std::size_t{1} << frame_lg2});
        }
    };

    std::size_t table_bytes_;
    std::unique_ptr<std::byte, Free> tables_;
    std::vector<TableHeader> headers_;
    std::vector<std::unique_ptr<Frame<Sync>[]>> frames_;
    std::span<std::byte> ram_;
};

} // namespace moat::mm
