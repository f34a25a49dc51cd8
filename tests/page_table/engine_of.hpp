// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine of one format as an Engine. Only engines*.cpp include this: it compiles slowly.
#pragma once

#include "moat/page_table/edit.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/serial.hpp"

#include "engine.hpp"
#include "formats.hpp"

#include <cstddef>
#include <cstdlib>
#include <gtest/gtest.h>

namespace moat::tests {

/// A TablePool whose allocations fail from the n-th on, on request.
class LimitedPool {
  public:
    LimitedPool(const TableMemory& given, unsigned unit_lg2)
        : own_(given.bytes.empty() ? allocate_own(unit_lg2) : nullptr),
          headers_(own_ ? own_tables : given.bytes.size() >> unit_lg2),
          pool_(own_ ? std::span(own_.get(), own_tables << unit_lg2) : given.bytes,
                own_ ? PhysicalAddress(std::uint64_t{1} << 40) : given.physical, headers_,
                unit_lg2) {}

    Result<PhysicalAddress> allocate(unsigned bytes_lg2) {
        if (allowed_ == 0U)
            return fail(ErrorCode::no_memory, "the test lets no more tables be made");
        if (allowed_)
            --*allowed_;
        return pool_.allocate(bytes_lg2);
    }

    void release(PhysicalAddress table, unsigned bytes_lg2) { pool_.release(table, bytes_lg2); }

    [[nodiscard]] Word* words(PhysicalAddress table) const { return pool_.words(table); }

    [[nodiscard]] TableHeader& header(PhysicalAddress table) const { return pool_.header(table); }

    void allow(std::optional<std::uint64_t> allocations) { allowed_ = allocations; }

    [[nodiscard]] std::uint64_t units_in_use() const { return pool_.units_in_use(); }

  private:
    static constexpr std::size_t own_tables = 2048;

    struct Free {
        void operator()(std::byte* bytes) const { std::free(bytes); }
    };

    static std::byte* allocate_own(unsigned unit_lg2) {
        return static_cast<std::byte*>(
            std::aligned_alloc(std::size_t{1} << (unit_lg2 + 4), own_tables << unit_lg2));
    }

    std::unique_ptr<std::byte[], Free> own_;
    std::vector<TableHeader> headers_;
    TablePool<SerialSync> pool_;
    std::optional<std::uint64_t> allowed_;
};

template <PageTableFormat F>
class EngineOf final : public Engine {
  public:
    using Types = Tree<F, SerialSync, LimitedPool>;
    using Input = typename F::Input;

    EngineOf(unsigned levels, const TableMemory& memory)
        : pool_(memory, F::granule_lg2), table_(*PageTable<Types>::create(pool_, levels)) {}

    Result<void> map(std::uint64_t start, std::uint64_t size, std::uint64_t physical,
                     Attributes attributes, MapOptions options) override {
        return edit([&](auto& open) {
            return open.map(Input(start), ByteCount(size), PhysicalAddress(physical), attributes,
                            options);
        });
    }

    std::uint64_t map_pages(std::uint64_t start, const std::vector<std::uint64_t>& memory,
                            Attributes attributes) override {
        const auto memory_of = [&](std::uint64_t page) { return PhysicalAddress(memory[page]); };
        return edit([&](auto& open) {
            return open.map_pages(Input(start), memory.size(), memory_of, attributes);
        });
    }

    Result<Unmapped> unmap(std::uint64_t start, std::uint64_t size, UnmapOptions options) override {
        return edit([&](auto& open) { return open.unmap(Input(start), ByteCount(size), options); });
    }

    Result<Protected> protect(std::uint64_t start, std::uint64_t size, Attributes attributes,
                              ProtectOptions options) override {
        return edit([&](auto& open) {
            return open.protect(Input(start), ByteCount(size), attributes, options);
        });
    }

    Result<std::uint64_t> split(std::uint64_t start, std::uint64_t size, Break breaking) override {
        return edit(
            [&](auto& open) { return open.split(Input(start), ByteCount(size), breaking); });
    }

    Result<void> fold(std::uint64_t start, std::uint64_t size, Break breaking) override {
        return edit([&](auto& open) { return open.fold(Input(start), ByteCount(size), breaking); });
    }

    Result<std::vector<FlagReport>> clear_flags(std::uint64_t start, std::uint64_t size,
                                                Attributes which) override {
        return edit([&](auto& open) -> Result<std::vector<FlagReport>> {
            std::vector<FlagReport> reports;
            const auto done =
                open.clear_accessed_dirty(Input(start), ByteCount(size), which,
                                          [&](Input at, ByteCount bytes, Attributes had) {
                                              reports.push_back({at.value(), bytes.value(), had});
                                          });
            if (!done)
                return std::unexpected(done.error());
            return reports;
        });
    }

    Result<void> grow() override {
        if constexpr (F::fewest_levels != F::most_levels)
            return edit([](auto& open) { return open.grow(); });
        else
            return fail(ErrorCode::unsupported, "trees of this format do not grow");
    }

    std::optional<Found> translate(std::uint64_t address) override {
        const auto found = translate_uncached(address);
        if (found)
            cache_.insert_or_assign(address, *found);
        return found;
    }

    Result<WalkEnd> walk(std::uint64_t start, std::uint64_t size, std::vector<Visit>& visits,
                         const std::function<WalkControl(const Visit&)>& control) override {
        Recorder recorder{visits, control};
        return table_.reader().walk(Input(start), ByteCount(size), recorder);
    }

    Mappings mappings() override {
        Collector collector;
        // In two halves, since 2^64 is no size.
        const unsigned bits = input_bits<F>(levels());
        for (const std::uint64_t start :
             {std::uint64_t{0}, F::sign_extended ? ~low_bits(bits - 1) : bit(bits - 1)}) {
            const auto end =
                table_.reader().walk(Input(start), ByteCount(bit(bits - 1)), collector);
            EXPECT_TRUE(end) << to_string(end.error());
        }
        const std::uint64_t root_units = bit(table_bytes_lg2<F>(levels() - 1) - F::granule_lg2);
        EXPECT_EQ(pool_.units_in_use(), root_units + collector.tables)
            << "tables of the tree, and tables that the memory handed out";
        return collector.mappings;
    }

    void hardware_uses(std::uint64_t address, Attributes flags) override {
        at_last_entry(address, [&]<unsigned L>(Word& word) {
            if (F::template kind<L>(word) == EntryKind::absent)
                FAIL() << "hardware faults at " << hexadecimal(address);
            if constexpr (can_be_leaf<F>(L))
                set_flags<L>(word, flags);
        });
    }

    [[nodiscard]] Word& entry_of(std::uint64_t address) override {
        Word* found = nullptr;
        at_last_entry(address, [&]<unsigned>(Word& word) { found = &word; });
        return *found;
    }

    [[nodiscard]] PhysicalAddress root() const override { return table_.root().table; }

    void allow_allocations(std::optional<std::uint64_t> allocations) override {
        pool_.allow(allocations);
    }

    [[nodiscard]] std::uint64_t tables_in_use() const override { return pool_.units_in_use(); }

    [[nodiscard]] unsigned levels() const override { return table_.root().levels; }

  private:
    struct Recorder {
        std::vector<Visit>& visits;
        const std::function<WalkControl(const Visit&)>& control;

        WalkControl record(const Visit& visit) {
            visits.push_back(visit);
            return control ? control(visit) : WalkControl::next;
        }

        template <class L>
        WalkControl leaf(Input start, const L& found) {
            return record({'L', start.value(), found.size().value()});
        }

        WalkControl hole(Input start, ByteCount size) {
            return record({'-', start.value(), size.value()});
        }

        template <class E>
        WalkControl table(Input start, const E&) {
            return record({'T', start.value(), bit(entry_lg2<F>(E::level))});
        }
    };

    struct Collector {
        Mappings mappings;
        std::uint64_t tables = 0;

        template <class L>
        void leaf(Input start, const L& found) {
            if (!is_aligned(start.value() | found.physical().value(), found.size_lg2()))
                ADD_FAILURE() << start << " -> " << found.physical() << ", " << found.size();
            append_merged(mappings, start.value(),
                          {start.value() + (found.size().value() - 1), found.physical().value(),
                           found.attributes() - accessed_and_dirty});
        }

        template <class E>
        void table(Input, const E&) {
            ++tables;
        }
    };

    template <class Change>
    auto edit(Change&& change) {
        auto invalidate = [this](const InvalidationRequest<Input>& request) {
            ++invalidations;
            if (during_invalidation)
                during_invalidation(request.start.value(), request.last.value());
            cache_.erase(cache_.lower_bound(request.start.value()),
                         cache_.upper_bound(request.last.value()));
        };
        auto open = table_.edit(invalidate);
        const auto result = change(open);
        open.finish();
        SerialSync::barrier();
        expect_cache_is_true();
        return result;
    }

    std::optional<Found> translate_uncached(std::uint64_t address) {
        const auto found = table_.reader().translate(Input(address));
        if (!found)
            return std::nullopt;
        return Found{found->physical().value(), bit(found->leaf_lg2()), found->attributes()};
    }

    void expect_cache_is_true() {
        for (const auto& [address, cached] : cache_) {
            const auto now = translate_uncached(address);
            ASSERT_TRUE(now) << hexadecimal(address) << " is still cached, and unmapped";
            ASSERT_EQ(now->physical, cached.physical) << hexadecimal(address) << " is stale";
            ASSERT_EQ(now->attributes - accessed_and_dirty, cached.attributes - accessed_and_dirty)
                << hexadecimal(address) << " is stale";
        }
    }

    /// Calls `use` for the entry, absent or a leaf, that ends hardware's walk.
    template <class Use>
    void at_last_entry(std::uint64_t address, Use&& use) {
        walk_down<F::most_levels - 1>(pool_.words(table_.root().table), address, use);
    }

    template <unsigned L, class Use>
    void walk_down(Word* table, std::uint64_t address, Use& use) {
        if constexpr (L > 0) {
            if (L >= levels())
                return walk_down<L - 1>(table, address, use);
        }
        const std::uint64_t index =
            (address >> entry_lg2<F>(L)) & ((std::uint64_t{1} << F::index_bits(L)) - 1);
        Word& word = table[index];
        if constexpr (L > 0) {
            if (F::template kind<L>(word) == EntryKind::table)
                return walk_down<L - 1>(
                    pool_.words(PhysicalAddress(F::template table_physical<L>(word))), address,
                    use);
        }
        use.template operator()<L>(word);
    }

    template <unsigned L>
    static void set_flags(Word& word, Attributes flags) {
        const Word used = F::template leaf_word<L>(
            F::template leaf_physical<L>(word),
            F::attribute_word(F::template leaf_attributes<L>(word) | flags),
            F::template leaf_group_lg2<L>(word));
        word = F::merge_accessed_dirty(word,
                                       F::clear_accessed_dirty(used, accessed_and_dirty - flags));
    }

    LimitedPool pool_;
    PageTable<Types> table_;
    std::map<std::uint64_t, Found> cache_;
};

/// Leaf sizes that the output bits and the tree can hold, smallest first.
template <PageTableFormat F>
std::vector<unsigned> leaf_sizes_lg2() {
    std::vector<unsigned> sizes;
    for (unsigned level = 0; level != F::most_levels; ++level)
        for (unsigned group = 0; group != 32; ++group) {
            const unsigned lg2 = entry_lg2<F>(level) + group;
            if ((F::leaf_groups(level) & (std::uint32_t{1} << group)) != 0 &&
                lg2 < F::output_bits && lg2 < input_bits<F>())
                sizes.push_back(lg2);
        }
    return sizes;
}

template <class C>
FormatUnderTest format_under_test() {
    using F = typename C::Format;
    FormatFacts facts = {.name = C::name,
                         .granule_lg2 = F::granule_lg2,
                         .fewest_levels = F::fewest_levels,
                         .most_levels = F::most_levels,
                         .input_bits = input_bits<F>(),
                         .output_bits = F::output_bits,
                         .sign_extended = F::sign_extended,
                         .capabilities = F::capabilities,
                         .entry_lg2 = {},
                         .leaf_sizes_lg2 = leaf_sizes_lg2<F>(),
                         .address_step = F::template entry_step<0>(0),
                         .representable = F::representable,
                         .attribute_word = F::attribute_word};
    for (unsigned level = 0; level != F::most_levels; ++level)
        facts.entry_lg2.push_back(entry_lg2<F>(level));
    return {facts, [](unsigned levels, const TableMemory& memory) {
                return std::make_unique<EngineOf<F>>(levels, memory);
            }};
}

template <class... Cases>
std::vector<FormatUnderTest> engines_of(::testing::Types<Cases...>) {
    return {format_under_test<Cases>()...};
}

} // namespace moat::tests
