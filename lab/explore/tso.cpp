// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Total store order, as on x86: a store, or the store that ends a lock, enters the thread's buffer.
// Its thread reads it at once, others when the buffer, an actor of its own, flushes it.
// Source: Sewell, Sarkar, Owens, Zappa Nardelli, Myreen, "x86-TSO", CACM 2010. A sequentially
// consistent store is an exchange there, and all but plain stores and loads drain the buffer.
#include "lab/explore/world.hpp"

#include <algorithm>

namespace moat::explore {

namespace {

struct Entry {
    void* address = nullptr;
    std::uint64_t value = 0;
    std::int32_t step = no_step;
    std::uint8_t size = 0;
    bool unlocks = false;
};

struct Buffer {
    static constexpr std::size_t most = 6;
    std::array<Entry, most> entries{};
    std::uint32_t count = 0;
    std::int32_t last_flush = no_step;
};

class Tso final : public MemoryModel {
  public:
    void start(World& world) override {
        world_ = &world;
        using Buffers = std::array<Buffer, most_fibers>;
        buffers_ = new (world.arena().allocate(sizeof(Buffers), alignof(Buffers))) Buffers;
    }

    [[nodiscard]] bool allows(Actor fiber, const Operation& operation) const override {
        const Buffer& buffer = (*buffers_)[fiber];
        if (is_buffered(operation))
            return buffer.count != Buffer::most;
        switch (operation.kind) {
        case Kind::load:
        case Kind::choose:
        case Kind::allocate:
        case Kind::pause:
            return true;
        default:
            return buffer.count == 0;
        }
    }

    [[nodiscard]] unsigned options(Actor, const Operation&) const override { return 1; }

    [[nodiscard]] Touch touch(const Operation& operation, Touch plain) const override {
        return is_buffered(operation) ? Touch{Kind::buffer, nowhere, 0, {}} : plain;
    }

    bool perform(Actor fiber, Operation& operation, unsigned, Step& step) override {
        Buffer& buffer = (*buffers_)[fiber];
        if (is_buffered(operation)) {
            buffer.entries[buffer.count++] = {
                operation.address, operation.operand,
                static_cast<std::int32_t>(world_->execution().depth()), operation.size,
                operation.kind == Kind::unlock};
            return true;
        }
        if (operation.kind == Kind::load)
            for (std::uint32_t i = buffer.count; i-- != 0;)
                if (buffer.entries[i].address == operation.address) {
                    operation.result = buffer.entries[i].value;
                    return true;
                }
        if (operation.kind != Kind::load)
            step.cause = buffer.last_flush;
        return false;
    }

    void synchronise(Actor fiber, const Operation& operation, Step& step) override {
        if (step.cause == no_step && drains(operation.kind))
            step.cause = (*buffers_)[fiber].last_flush;
    }

    [[nodiscard]] ActorSet buffers() const override {
        ActorSet filled;
        for (Actor fiber = 0; fiber != most_fibers; ++fiber)
            if ((*buffers_)[fiber].count != 0)
                filled.add(buffer_of(fiber));
        return filled;
    }

    [[nodiscard]] Touch buffer_touch(Actor buffer) const override {
        const Entry& oldest = (*buffers_)[buffer - first_buffer].entries[0];
        return {oldest.unlocks ? Kind::unlock : Kind::flush,
                world_->arena().offset_of(oldest.address),
                0,
                {}};
    }

    void flush(Actor actor, Step& step) override {
        Buffer& buffer = (*buffers_)[actor - first_buffer];
        const Entry oldest = buffer.entries[0];
        std::copy(buffer.entries.begin() + 1, buffer.entries.begin() + buffer.count,
                  buffer.entries.begin());
        buffer.entries[--buffer.count] = {};
        buffer.last_flush = static_cast<std::int32_t>(world_->execution().depth());
        step.cause = oldest.step;
        step.size = oldest.size;
        step.operand = oldest.value;
        step.result = 0;
        if (oldest.unlocks)
            static_cast<LockState*>(oldest.address)->owner = 0;
        else
            write_word(oldest.address, oldest.size, oldest.value);
    }

  private:
    /// Whether an unbuffered operation waits until the buffer is empty.
    [[nodiscard]] static bool drains(Kind kind) {
        switch (kind) {
        case Kind::load:
        case Kind::choose:
        case Kind::allocate:
        case Kind::pause:
            return false;
        default:
            return true;
        }
    }

    [[nodiscard]] static bool is_buffered(const Operation& operation) {
        return operation.kind == Kind::unlock ||
               (operation.kind == Kind::store && operation.order != std::memory_order_seq_cst);
    }

    World* world_ = nullptr;
    std::array<Buffer, most_fibers>* buffers_ = nullptr; ///< in the arena
};

} // namespace

std::unique_ptr<MemoryModel> make_tso() {
    return std::make_unique<Tso>();
}

} // namespace moat::explore
