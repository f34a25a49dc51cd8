# Mistakes planted in copies of shipped headers: moat_mutate(HEADER OLD NEW) replaces OLD by NEW in
# the copy that mutants/*.cpp includes. `broken` (mutated_sync.hpp) is the variant that runs;
# tests/explore/mutants_test.cpp and tests/mm/explored_test.cpp say what must catch each.

moat_mutate(moat/page_table/invalidation.hpp
[[            retire_tables(invalidate_tables());]]
[[            if (Sync::broken == "free-before-invalidation") {
                retire_tables(Invalidated::done);
                (void)invalidate_tables();
            } else {
                retire_tables(Sync::broken == "never-invalidated" ? Invalidated::done
                                                                  : invalidate_tables());
            }]])

# A table is freed at once although its invalidation waited for no reader.
moat_mutate(moat/page_table/invalidation.hpp
[[            else if (how == Invalidated::after_readers)]]
[[            else if (Sync::broken == "unwaited" || how == Invalidated::after_readers)]])

# A cut looks for its end in the table behind it, which a neighbour may free.
moat_mutate(moat/page_table/detail/cut.hpp
[[        const Edge edges[] = {{start, start}, {last, last + 1}};]]
[[        const bool beyond = Tree::Sync::broken == "looks-beyond";
        const Edge edges[] = {{start, start}, {beyond ? last + 1 : last, last + 1}};]])

# A fold by break-before-make reads the table's flags again after it freed the table.
moat_mutate(moat/page_table/detail/fold.hpp
[[            const Invalidated how = pending_.invalidate_tables();]]
[[            const Invalidated how = pending_.invalidate_tables();
            if (Tree::Sync::broken == "read-after-free")
                pending_.retire_tables(how);]])

moat_mutate(moat/page_table/detail/rewrite.hpp
[[        } while (!writer_.compare_exchange(leaf.table, leaf.first, old, link));]]
[[            if (Tree::Sync::broken == "split-unchecked") {
                writer_.store(leaf.table, leaf.first, link);
                return;
            }
        } while (!writer_.compare_exchange(leaf.table, leaf.first, old, link));]])

# A fault that does not check, under the lock of its block, whether its VMA is still attached.
moat_mutate(moat/mm/detail/fault.hpp
[[        if (!vma.attached())]]
[[        if (Sync::broken != "unasked" && !vma.attached())]])

# A fault that uses, under the lock, a look from before.
moat_mutate(moat/mm/detail/fault.hpp
[[    Attempt try_size(Attached& vma, unsigned lg2) {]]
[[    Attempt try_size(Attached& vma, unsigned lg2) {
        if (Sync::broken == "looks-before-lock")
            early_ = core_.look(address_);]])
moat_mutate(moat/mm/detail/fault.hpp
[[        const Spot spot = core_.look(address_);]]
[[        const Spot spot = early_ ? *early_ : core_.look(address_);]])
moat_mutate(moat/mm/detail/fault.hpp
[[    Answer answer_;]]
[[    Answer answer_;
    std::optional<Spot> early_;]])

# Frames are freed before the notifiers have run.
moat_mutate(moat/mm/detail/zap.hpp
[[        });
        drop(batch);]]
[[            if (Sync::broken == "reuses-first")
                drop(batch);
        });
        if (Sync::broken != "reuses-first")
            drop(batch);]])

# A zap removes a table of level 1 while a VMA touches its span.
moat_mutate(moat/mm/detail/zap.hpp
[[        if (core_.look(reached_).level < 2)]]
[[        if (Sync::broken != "table-goes" && core_.look(reached_).level < 2)]])
moat_mutate(moat/mm/detail/zap.hpp
[[        if (spot.level < 2)
            return Block::table;]]
[[        if (spot.level < 2) {
            if (Sync::broken != "table-goes")
                return Block::table;
            const VirtualAddress first(align_down(reached_.value(), pud_lg2));
            remove({first, ByteCount(bit(pud_lg2))}, Tables::remove);
            advance(last);
            return Block::done;
        }]])

# An unmap frees the table of level 1 that a neighbour shares.
moat_mutate(moat/mm/detail/vma_change.hpp
[[        const std::uint64_t end = align_down(last + 1, pud_lg2);]]
[[        std::uint64_t end = align_down(last + 1, pud_lg2);
        if (Core::Sync::broken == "frees-shared-table") {
            first = align_down(range.start().value(), pud_lg2);
            end = align_up(range.last().value(), pud_lg2);
        }]])

# A region is marked as revoked only after its leaves are gone.
moat_mutate(moat/mm/address_space.hpp
[[        mark_revoked(region);
        const auto space =]]
[[        if (S::broken != "revokes-after-zap")
            mark_revoked(region);
        const auto space =]])
moat_mutate(moat/mm/address_space.hpp
[[        const Lock lock(core_.revokes_mutex);
        core_.notifiers.notify_revoked(region);]]
[[        if (S::broken == "revokes-after-zap")
            mark_revoked(region);
        if (S::broken != "untold") {
            const Lock lock(core_.revokes_mutex);
            core_.notifiers.notify_revoked(region);
        }]])

# A walk that continues with the action from before the retry, and one whose retries never end.
moat_mutate(moat/mm/walker.hpp
[[            action_ = Action::subtree;]]
[[            if (Sync::broken != "sticky-action")
                action_ = Action::subtree;]])
moat_mutate(moat/mm/walker.hpp
[[            if (attempt > options_.retries)]]
[[            if (Sync::broken == "unbounded-retry") {
                attempt = 0;   // so that the states of a livelock are equal
                Sync::pause(); // so that others undo its work whenever they can
            }
            if (attempt > options_.retries)]])

# Walks that take an entry of level 2 for a table after several loads of it: Linux's code before the
# fix, two proposals, and the merged fix ("reload", which is right as long as TABLE is absorbing).
moat_mutate(moat/mm/walker.hpp
[[            else
                visit_tables(part);]]
[[            else if (may_visit(part))
                visit_tables(part);
            else
                descend_unchecked(part);]])
moat_mutate(moat/mm/walker.hpp
[[    static constexpr bool installs =]]
[=[    enum class Seen : std::uint8_t { none, leaf, table };

    [[nodiscard]] Seen seen(VirtualRange part) const {
        const Spot spot = space_.core().look(part.start());
        return spot.level < 2 ? Seen::table : spot.is_leaf ? Seen::leaf : Seen::none;
    }

    [[nodiscard]] bool may_visit(VirtualRange part) const {
        if (Sync::broken == "old")
            return seen(part) == Seen::none;
        if (Sync::broken == "two-load")
            return seen(part) == Seen::none || seen(part) == Seen::leaf;
        if (Sync::broken == "two-load-reversed")
            return seen(part) == Seen::leaf || seen(part) == Seen::none;
        if (Sync::broken == "reload")
            return seen(part) != Seen::table;
        return true;
    }

    /// Takes one more load for a table, whatever it is.
    void descend_unchecked(VirtualRange part) {
        const Spot spot = space_.core().look(part.start());
        if (spot.level < 2)
            visit_tables(part);
        else
            (void)space_.memory().words(spot.is_leaf ? spot.leaf.physical : PhysicalAddress(0));
    }

    static constexpr bool installs =]=])

# A special cache that is used although the pressure has changed.
moat_mutate(moat/iova/detail/caches.hpp
[[        return cache.pressure == central_.pressure();]]
[[        return Sync::broken == "special-unasked" || cache.pressure == central_.pressure();]])

# A thread that ends keeps the ranges of its special cache.
moat_mutate(moat/iova/detail/caches.hpp
[[        surrender_special(cache);]]
[[        if (Sync::broken != "special-lost")
            surrender_special(cache);]])

# A placement that the special cache does not compare.
moat_mutate(moat/iova/detail/special_cache.hpp
[[wish.allows(kept[i].range.start, payload)]]
[[(Sync::broken == "wish-unasked" || wish.allows(kept[i].range.start, payload))]])

# A range that is visible after its count, or taken after its invalidation; a ring without the half
# that a flush works on; room that forgets a range; an owner who does not see the last one's stores;
# a timer that fires once.
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[        pushed_.store(pushed + 1, std::memory_order_release);]]
[[        pushed_.store(pushed + 1, Sync::broken == "queued-unordered" ? std::memory_order_relaxed
                                                                     : std::memory_order_release);]])
moat_mutate(moat/iova/flush_queue.hpp
[[            const unsigned shelf = lane->shelf(); // of a new owner, perhaps]]
[[            const unsigned shelf = lane->shelf();
            if (Sync::broken == "taken-late")
                (void)lane->take();]])
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[        ring_[pushed % ring_.size()].write(range);]]
[[        ring_[pushed % (Sync::broken == "half-a-ring" ? capacity : ring_.size())].write(range);]])
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[            batch[i - begin] = ring_[i % ring_.size()].read();]]
[[            batch[i - begin] =
                ring_[i % (Sync::broken == "half-a-ring" ? capacity : ring_.size())].read();]])
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[owned_.store(false, std::memory_order_release);]]
[[owned_.store(false, Sync::broken == "abandoned-unordered" ? std::memory_order_relaxed
                                                            : std::memory_order_release);]])
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[            const std::uint32_t queued = pushed - taken;]]
[[            const std::uint32_t queued = Sync::broken == "room-uncounted" ? 0 : pushed - taken;]])
moat_mutate(moat/iova/detail/flush_lanes.hpp
[[    using Batch = std::array<Range, capacity>;]]
[[    using Batch = std::array<Range, 2 * capacity>; // the scenario finds what is too much]])
moat_mutate(moat/iova/detail/flush_timer.hpp
[[        if (self.armed_.exchange(false, std::memory_order_seq_cst))]]
[[        if (self.armed_.exchange(false, std::memory_order_seq_cst) && Sync::broken != "one-look")]])

# Entries that a reader announces by a store, looks that may be old, sections that end unordered.
moat_mutate(moat/sync/readers.hpp
[=[        if (slot.entered.exchange(now, std::memory_order_acq_rel) == dormant) [[unlikely]]
            list(slot);]=]
[[        if (Sync::broken == "enter-by-store") {
            const std::uint64_t before = slot.entered.load(std::memory_order_relaxed);
            slot.entered.store(now, std::memory_order_release);
            if (before == dormant)
                list(slot);
        } else if (slot.entered.exchange(now, std::memory_order_acq_rel) == dormant) {
            list(slot);
        }]])
moat_mutate(moat/sync/readers.hpp
[[        return slot.entered.fetch_add(0, std::memory_order_acq_rel);]]
[[        if (Sync::broken == "look-by-load")
            return slot.entered.load(std::memory_order_acquire);
        return slot.entered.fetch_add(0, std::memory_order_acq_rel);]])
moat_mutate(moat/sync/readers.hpp
[[slot.entered.store(outside, std::memory_order_release);]]
[[slot.entered.store(outside, Sync::broken == "leave-relaxed" ? std::memory_order_relaxed
                                                               : std::memory_order_release);]])

# A reader that lists its slot after the meeting, sides that do not meet, a slot that is listed while
# a grace period removes it, and one that is removed while its section is open.
moat_mutate(moat/sync/readers.hpp
[[        {
            const Lock lock(mutex_); // so that `remove_idle` has unlinked it]]
[[        for (unsigned place = 0; place != places && Sync::broken == "met-first"; ++place)
            meet(place);
        {
            std::optional<Lock> lock;
            if (Sync::broken != "listed-unlocked")
                lock.emplace(mutex_);]])
moat_mutate(moat/sync/readers.hpp
[[        for (unsigned place = 0; place != places; ++place)
            meet(place);
    }]]
[[        for (unsigned place = 0; place != places && Sync::broken != "reader-unmet" &&
                                 Sync::broken != "met-first";
             ++place)
            meet(place);
    }]])
moat_mutate(moat/sync/readers.hpp
[[        meet(place);
        if (Slot* const first]]
[[        if (Sync::broken != "reclaimer-unmet")
            meet(place);
        if (Slot* const first]])
moat_mutate(moat/sync/readers.hpp
[[each->entered.compare_exchange_strong(expected, dormant, std::memory_order_acq_rel,
                                                      std::memory_order_relaxed))]]
[[(Sync::broken == "removed-open" ||
                 each->entered.compare_exchange_strong(expected, dormant, std::memory_order_acq_rel,
                                                       std::memory_order_relaxed)))]])

# Two threads that unmap mappings of one page in one round leave their order open.
moat_mutate(moat/dma/detail/past_rings.hpp
[[        if (last % most_stripes != stripe.index && last / most_stripes == round % rounds)]]
[[        if (Sync::broken != "stamp-ignored" && last % most_stripes != stripe.index &&
            last / most_stripes == round % rounds)]])

# A note that begins a round for itself takes the old round's number.
moat_mutate(moat/dma/detail/past_rings.hpp
[[            round = next_round() + 1;]]
[[            round = next_round() + (Sync::broken == "round-kept" ? 0 : 1);]])

# What is older than a lost entry enters the index.
moat_mutate(moat/dma/detail/past_rings.hpp
[[        taken.erase(kept.begin(), kept.end());]]
[[        if (Sync::broken != "lost-kept")
            taken.erase(kept.begin(), kept.end());]])

# A ring that wrapped does not count the notes before.
moat_mutate(moat/dma/detail/past_rings.hpp
[[        stripe.noted_at_stop += until;]]
[[        stripe.noted_at_stop += Sync::broken == "notes-uncounted" ? 0 : until;]])

# VT-d's queue: a tail written before its descriptors, a wait for any status, a status that orders
# nothing, a queue that is filled to its head, and an error that nobody sees.
moat_mutate(moat/iommu/detail/vtd_invalidation_port.hpp
[[        for (const Command& each : commands)
            append(each.descriptor(capabilities_));]]
[[        if (Sync::broken == "tail-first")
            registers_.write64(reg::queue_tail, (tail_ + commands.size() + 1) % slots << 4);
        for (const Command& each : commands)
            append(each.descriptor(capabilities_));]])
moat_mutate(moat/iommu/detail/completion_word.hpp
[[        return static_cast<std::uint32_t>(load_word<Sync>(*memory_.words(where_))) == number_;]]
[[        const auto order = Sync::broken == "status-relaxed" ? std::memory_order_relaxed
                                                            : std::memory_order_acquire;
        const auto seen = static_cast<std::uint32_t>(
            typename Sync::template AtomicRef<std::uint64_t>(*memory_.words(where_)).load(order));
        return Sync::broken == "status-any" ? seen != 0 : seen == number_;]])
moat_mutate(moat/iommu/detail/vtd_invalidation_port.hpp
[[        for (; commands.size() > most_at_once;]]
[[        for (; Sync::broken != "batch-too-long" && commands.size() > most_at_once;]])
moat_mutate(moat/iommu/detail/vtd_invalidation_port.hpp
[[            return (registers_.read32(reg::fault_status) & fault_bits::queue_errors) != 0;]]
[[            return Sync::broken != "error-unseen" &&
                   (registers_.read32(reg::fault_status) & fault_bits::queue_errors) != 0;]])

# The command buffer of AMD's IOMMU: the same.
moat_mutate(moat/iommu/detail/amd_command_buffer.hpp
[[        for (const Command& each : commands)
            append(each);]]
[[        if (Sync::broken == "tail-first")
            registers_.write64(reg::command_tail,
                               ((tail_ + commands.size() + 1) & low_bits(entries_lg2))
                                   << queue_entry_lg2);
        for (const Command& each : commands)
            append(each);]])
moat_mutate(moat/iommu/detail/amd_command_buffer.hpp
[[        for (; commands.size() > most_at_once;]]
[[        for (; Sync::broken != "batch-too-long" && commands.size() > most_at_once;]])
moat_mutate(moat/iommu/detail/amd_command_buffer.hpp
[[            return (registers_.read64(reg::status) & status::runs_commands) == 0;]]
[[            return Sync::broken != "stop-unseen" &&
                   (registers_.read64(reg::status) & status::runs_commands) == 0;]])

# SMMUv3's command queue: the same, and a wait for the command before CMD_SYNC, none of these, and an
# index without its wrap bit.
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[            for (const Command& each : some)]]
[[            if (Sync::broken == "producer-first")
                registers_.write32(
                    reg::command_producer,
                    (producer_ + static_cast<std::uint32_t>(some.size()) + 1) & index_mask());
            for (const Command& each : some)]])
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[            append(synchronize());]]
[[            if (Sync::broken != "no-sync")
                append(synchronize());]])
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[            if ((consumer & index_mask()) == producer_)]]
[[            const unsigned ahead = Sync::broken == "sync-unawaited" ? 1 : 0;
            if (((consumer + ahead) & index_mask()) == producer_)]])
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[        producer_ = (producer_ + 1) & index_mask();]]
[[        producer_ = (producer_ + 1) & (index_mask() >> (Sync::broken == "wrap-kept" ? 1 : 0));]])
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[commands.size() < most ?]]
[[commands.size() < most || Sync::broken == "batch-too-long" ?]])
moat_mutate(moat/iommu/detail/smmuv3_command_queue.hpp
[[            if ((active & command_queue_error) != 0)]]
[[            if (Sync::broken != "error-unseen" && (active & command_queue_error) != 0)]])

# SMMUv3's event queue: entries that the unit may fill again before they are read, a full queue that
# looks empty, and overflows that are not reported or not acknowledged.
moat_mutate(moat/iommu/detail/smmuv3_event_queue.hpp
[[        for (; waiting != 0; --waiting)]]
[[        if (Sync::broken == "freed-first")
            registers_.write32(reg::event_consumer, producer & (index_mask() | overflow));
        for (; waiting != 0; --waiting)]])
moat_mutate(moat/iommu/detail/smmuv3_event_queue.hpp
[[(producer - consumer_) & index_mask();]]
[[(producer - consumer_) & (index_mask() >> (Sync::broken == "wrap-ignored" ? 1 : 0));]])
moat_mutate(moat/iommu/detail/smmuv3_event_queue.hpp
[[        const bool lost = ((producer ^ consumer_) & overflow) != 0;]]
[[        const bool lost =
            Sync::broken != "overflow-unseen" && ((producer ^ consumer_) & overflow) != 0;]])
moat_mutate(moat/iommu/detail/smmuv3_event_queue.hpp
[[        consumer_ = producer & (index_mask() | overflow);]]
[[        consumer_ = producer & (index_mask() | overflow);
        if (Sync::broken == "overflow-unacknowledged")
            consumer_ &= ~overflow;]])

# virtio-iommu's requests: a chain that is offered before it is written, an index that orders nothing,
# a notification before the offer, and an answer that is taken again.
moat_mutate(moat/iommu/detail/virtio_request_queue.hpp
[[        Word* const words = memory_.words(page_);]]
[[        if (Sync::broken == "offered-first")
            rings_.offer(0);
        Word* const words = memory_.words(page_);]])
moat_mutate(moat/iommu/detail/virtio_request_queue.hpp
[[        rings_.offer(0);
        notify();]]
[[        if (Sync::broken == "notified-first")
            notify();
        if (Sync::broken != "offered-first")
            rings_.offer(0);
        if (Sync::broken != "notified-first")
            notify();]])
moat_mutate(moat/iommu/detail/virtio_queue.hpp
[[.store(value, std::memory_order_release);]]
[[.store(value, Sync::broken == "offer-relaxed" ? std::memory_order_relaxed
                                                             : std::memory_order_release);]])
moat_mutate(moat/iommu/detail/virtio_queue.hpp
[[.load(std::memory_order_acquire);]]
[[.load(Sync::broken == "used-relaxed" ? std::memory_order_relaxed
                                                             : std::memory_order_acquire);]])
moat_mutate(moat/iommu/detail/virtio_queue.hpp
[[taken_++ % slots;]]
[[(Sync::broken == "used-kept" ? taken_ : taken_++) % slots;]])
