// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Memory of buffers: allocated by a container, freed when nobody can reach it any more.
#include "block.hpp"
#include "core.hpp"

#include <cstring>
#include <new>

namespace moat::api {

namespace {

/// Of every IOMMU that Linux has drivers for on these machines, and of large folios.
constexpr std::size_t page = 4096;
/// More than any address space has; rounding up does not overflow.
constexpr std::size_t most_bytes = std::size_t{1} << 57;

/// Memory of this process.
class OwnBlock final : public Block {
  public:
    OwnBlock(Link from, std::size_t bytes)
        : Block(from), bytes_(static_cast<std::byte*>(
                           ::operator new(bytes, std::align_val_t{page}, std::nothrow))) {}

    ~OwnBlock() override { ::operator delete(bytes_, std::align_val_t{page}); }

    [[nodiscard]] std::byte* bytes() const { return bytes_; }

  private:
    std::byte* const bytes_;
};

} // namespace

Result<Buffer> Core::allocate(std::size_t bytes) {
    if (bytes == 0)
        return fail(ErrorCode::empty, "a buffer of no bytes");
    const auto no_memory = [&] {
        return fail(ErrorCode::no_memory, "no memory for the buffer", {"bytes", bytes});
    };
    if (bytes > most_bytes)
        return no_memory();
    const std::size_t whole = (bytes + page - 1) & ~(page - 1);
    auto block = std::unique_ptr<OwnBlock>(new (std::nothrow) OwnBlock(link(), whole));
    if (block == nullptr || block->bytes() == nullptr)
        return no_memory();
    std::memset(block->bytes(), 0, whole);
    const std::span<std::byte> named(block->bytes(), bytes);
    return Buffer(BlockShare(block.release()), named);
}

void leave_behind(Core& core, BlockShare& share, const Result<void>& unmapped) {
    // Of an invalidation that failed, or where a list or the caller changed what is mapped here.
    if (!unmapped && unmapped.error().code() != ErrorCode::not_found) {
        (void)share.release(); // a device may reach it for ever
        return;
    }
    if (!core.defers())
        return;
    Block& block = *share.block();
    if (block.home.core() == &core)
        block.unflushed.store(true, std::memory_order_relaxed);
    else if (!core.flush())
        (void)share.release();
}

void BlockShare::drop(Block* block) {
    Block::drop(block);
}

void Block::end(Block* block) {
    if (block->unflushed.load(std::memory_order_relaxed))
        if (Core* const core = block->home.core(); core != nullptr && !core->flush())
            return; // a device may reach it for ever
    delete block;
}

} // namespace moat::api
