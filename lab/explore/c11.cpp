// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Release and acquire by views: each location has messages in modification order. A thread's view
// holds the newest message that it has seen of each location, and so bounds what it may still read.
// A store may precede messages that its thread has not seen, but never comes between a message and
// the read-modify-write that read it. Program order and reads-from stay acyclic, as in RC11
// (Lahav, Vafeiadis, Kang, Hur, Dreyer, PLDI 2017). The machine for views: Kang, Hur, Lahav,
// Vafeiadis, Dreyer, "A promising semantics", POPL 2017, without promises.
#include "lab/explore/races.hpp"
#include "lab/explore/world.hpp"

#include <algorithm>
#include <utility>

namespace moat::explore {

namespace {

/// Place in the modification order of a location; 0 is the value before the first step.
using Stamp = std::uint64_t;

constexpr Stamp stamp_gap = Stamp{1} << 32;
constexpr std::size_t most_locations = 48;
constexpr std::size_t most_channels = 24;
static_assert(most_locations <= 64, "State::loaded has a bit for each");

struct View {
    std::array<Stamp, most_locations> seen{};

    void join(const View& other) {
        for (std::size_t i = 0; i != most_locations; ++i)
            seen[i] = std::max(seen[i], other.seen[i]);
    }
};

struct Message {
    std::uint64_t value = 0;
    Stamp stamp = 0;
    Message* older = nullptr;
    std::int32_t step = no_step;
    bool taken = false; ///< a read-modify-write read it and comes immediately after
    View view;          ///< joins the view of an acquire that reads it
};

struct Location {
    std::uint32_t offset = 0;
    Message* newest = nullptr;
    Stamp sequential = 0; ///< the newest that a sequentially consistent access wrote or read
};

struct ChannelView {
    std::uint32_t offset = 0;
    Channel channel = Channel::none;
    View view;
};

struct State {
    std::uint32_t location_count = 0;
    std::uint32_t channel_count = 0;
    std::array<Location, most_locations> locations{};
    std::array<View, most_fibers> threads{};
    /// By thread, the locations it has loaded from since it last paused.
    std::array<std::uint64_t, most_fibers> loaded{};
    std::array<ChannelView, most_channels> channels{};
};

class C11 final : public MemoryModel {
  public:
    void start(World& world) override {
        world_ = &world;
        state_ = make<State>();
    }

    [[nodiscard]] bool allows(Actor, const Operation&) const override { return true; }

    [[nodiscard]] unsigned options(Actor fiber, const Operation& operation) const override {
        const std::size_t index = find(operation);
        if (index == state_->location_count)
            return 1;
        unsigned count = 0;
        for (const Message* each = state_->locations[index].newest;
             each != nullptr && each->stamp >= oldest_allowed(fiber, index, operation);
             each = each->older)
            count += is_possible(*each, operation) ? 1U : 0U;
        return count;
    }

    [[nodiscard]] Touch touch(const Operation&, Touch plain) const override { return plain; }

    bool perform(Actor fiber, Operation& operation, unsigned option, Step& step) override {
        if (operation.kind == Kind::unlock)
            return false;
        std::size_t index = find(operation);
        if (index == state_->location_count) {
            if (operation.kind == Kind::load) {
                operation.result = read_word(operation.address, operation.size);
                return true;
            }
            if (!add_location(operation))
                return true;
        }
        Location& location = state_->locations[index];
        Message& base = message_for(fiber, index, operation, option);
        View& own = state_->threads[fiber];
        operation.result = base.value;
        const auto value = value_after(operation, base.value);
        if (operation.kind != Kind::store) {
            state_->loaded[fiber] |= std::uint64_t{1} << index;
            step.reads_from = base.step;
            own.seen[index] = std::max(own.seen[index], base.stamp);
            if (is_acquire(operation.order))
                own.join(base.view);
        }
        Stamp stamp = base.stamp;
        if (value)
            stamp = write(fiber, index, base, *value, operation).stamp;
        if (operation.order == std::memory_order_seq_cst)
            location.sequential = std::max(location.sequential, stamp);
        return true;
    }

    void synchronise(Actor fiber, const Operation& operation, Step& step) override {
        const std::uint32_t offset =
            operation.address == nullptr ? nowhere : world_->arena().offset_of(operation.address);
        View& own = state_->threads[fiber];
        if (const Channel from = learns_from(step.touch.kind); from != Channel::none)
            own.join(channel(offset, from));
        if (const Channel to = publishes_to(operation.kind); to != Channel::none)
            channel(offset, to).join(own);
        for (ActorSet rest = step.touch.who; !rest.empty(); rest = rest.tail()) {
            View& told = channel(offset + rest.first(), Channel::awaited);
            if (step.touch.kind == Kind::read_end)
                told.join(own);
            else
                own.join(std::exchange(told, {}));
        }
        if (operation.kind == Kind::barrier)
            own.join(state_->threads[reclaimer]);
        if (operation.kind == Kind::pause)
            catch_up(fiber);
    }

    [[nodiscard]] ActorSet buffers() const override { return {}; }

    [[nodiscard]] Touch buffer_touch(Actor) const override { return {}; }

    void flush(Actor, Step&) override {}

  private:
    template <class T>
    T* make() const {
        void* const memory = world_->arena().allocate(sizeof(T), alignof(T));
        MOAT_CHECK(memory != nullptr, "the messages of one execution fit the arena");
        return new (memory) T;
    }

    [[nodiscard]] std::size_t find(const Operation& operation) const {
        const std::uint32_t offset = world_->arena().offset_of(operation.address);
        std::size_t index = 0;
        while (index != state_->location_count && state_->locations[index].offset != offset)
            ++index;
        return index;
    }

    /// Return: false without room for one more; the execution then ends.
    [[nodiscard]] bool add_location(const Operation& operation) {
        if (state_->location_count == most_locations) {
            world_->exceed("more written locations than the c11 model follows");
            return false;
        }
        auto* const first = make<Message>();
        first->value = read_word(operation.address, operation.size);
        state_->locations[state_->location_count++] = {world_->arena().offset_of(operation.address),
                                                       first, 0};
        return true;
    }

    [[nodiscard]] Stamp oldest_allowed(Actor fiber, std::size_t index,
                                       const Operation& operation) const {
        const Stamp seen = state_->threads[fiber].seen[index];
        return operation.order == std::memory_order_seq_cst
                   ? std::max(seen, state_->locations[index].sequential)
                   : seen;
    }

    /// Whether the operation can read `message`, and place its own message after it.
    [[nodiscard]] static bool is_possible(const Message& message, const Operation& operation) {
        const bool writes =
            operation.kind != Kind::load &&
            (operation.kind != Kind::compare_exchange || message.value == operation.expected);
        return !writes || !message.taken;
    }

    [[nodiscard]] Message& message_for(Actor fiber, std::size_t index, const Operation& operation,
                                       unsigned option) const {
        const Stamp bound = oldest_allowed(fiber, index, operation);
        for (Message* each = state_->locations[index].newest;
             each != nullptr && each->stamp >= bound; each = each->older)
            if (is_possible(*each, operation) && option-- == 0)
                return *each;
        MOAT_CHECK(false, "there is a message for every option");
        return *state_->locations[index].newest;
    }

    Message& write(Actor fiber, std::size_t index, Message& base, std::uint64_t value,
                   const Operation& operation) {
        Location& location = state_->locations[index];
        Message** link = &location.newest;
        Stamp above = base.stamp + 2 * stamp_gap;
        while (*link != &base) {
            above = (*link)->stamp;
            link = &(*link)->older;
        }
        auto* const fresh = make<Message>();
        fresh->value = value;
        fresh->stamp = base.stamp + (above - base.stamp) / 2;
        MOAT_CHECK(fresh->stamp != base.stamp, "a place between two messages is left");
        fresh->older = &base;
        fresh->step = static_cast<std::int32_t>(world_->execution().depth());
        *link = fresh;
        View& own = state_->threads[fiber];
        own.seen[index] = fresh->stamp;
        if (operation.kind != Kind::store) {
            base.taken = true;
            fresh->view = base.view; // a release sequence goes on
        }
        fresh->view.seen[index] = fresh->stamp;
        if (is_release(operation.order))
            fresh->view.join(own);
        write_word(operation.address, operation.size, location.newest->value);
        return *fresh;
    }

    /// A write becomes visible in finite time: a load after a pause reads a message at least as new
    /// as the newest one then. The view learns nothing else, so a missing acquire still shows.
    void catch_up(Actor fiber) {
        for (std::size_t index = 0; index != state_->location_count; ++index)
            if ((state_->loaded[fiber] >> index & 1) != 0)
                state_->threads[fiber].seen[index] = state_->locations[index].newest->stamp;
        state_->loaded[fiber] = 0;
    }

    View& channel(std::uint32_t offset, Channel channel) {
        for (std::uint32_t i = 0; i != state_->channel_count; ++i)
            if (state_->channels[i].offset == offset && state_->channels[i].channel == channel)
                return state_->channels[i].view;
        if (state_->channel_count == most_channels) {
            world_->exceed("more locks and conditions than the c11 model follows");
            return state_->channels[0].view;
        }
        ChannelView& fresh = state_->channels[state_->channel_count++];
        fresh = {offset, channel, {}};
        return fresh.view;
    }

    World* world_ = nullptr;
    State* state_ = nullptr; ///< in the arena
};

} // namespace

std::unique_ptr<MemoryModel> make_c11() {
    return std::make_unique<C11>();
}

} // namespace moat::explore
