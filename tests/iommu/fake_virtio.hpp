// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A virtio-iommu as a test's registers: it answers requests at once, forgets a domain with its last
// function as QEMU's does, and misbehaves on request.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/iommu/virtio.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace moat::tests {

class FakeVirtio {
  public:
    using Pool = TablePool<RealSync>;

    static constexpr iommu::virtio::Layout layout = {
        .common = 0x100, .notify = 0x1000, .notify_multiplier = 4, .device = 0x2000};

    explicit FakeVirtio(Pool& pool) : pool_(pool) {
        using namespace iommu::virtio;
        put<std::uint64_t>(layout.device + config::page_sizes, ~low_bits(12));
        put<std::uint64_t>(layout.device + config::last_input, ~std::uint64_t{0});
        put<std::uint32_t>(layout.device + config::last_domain, 3);
        put<std::uint8_t>(layout.device + config::bypass, 1);
    }

    std::uint8_t read8(std::uint64_t offset) { return get<std::uint8_t>(offset); }

    std::uint16_t read16(std::uint64_t offset) {
        using namespace iommu::virtio;
        if (offset == layout.common + reg::queue_size)
            return queue_slots;
        if (offset == layout.common + reg::queue_notify)
            return selected();
        return get<std::uint16_t>(offset);
    }

    std::uint32_t read32(std::uint64_t offset) {
        using namespace iommu::virtio;
        if (offset == layout.common + reg::offered)
            return static_cast<std::uint32_t>(
                features >> 32 * get<std::uint32_t>(layout.common + reg::offered_select));
        return get<std::uint32_t>(offset);
    }

    std::uint64_t read64(std::uint64_t offset) { return get<std::uint64_t>(offset); }

    void write8(std::uint64_t offset, std::uint8_t value) {
        using namespace iommu::virtio;
        if (offset == layout.common + reg::status && !present)
            value = 0xff;
        if (offset == layout.common + reg::status && refuses_features)
            value &= static_cast<std::uint8_t>(~status::features);
        if (offset == layout.common + reg::status && value == 0)
            reset();
        put(offset, value);
    }

    void write16(std::uint64_t offset, std::uint16_t value) {
        put(offset, value);
        if (offset == layout.notify)
            answer_requests();
    }

    void write32(std::uint64_t offset, std::uint32_t value) { put(offset, value); }

    void write64(std::uint64_t offset, std::uint64_t value) {
        using namespace iommu::virtio;
        put(offset, value);
        if (offset == layout.common + reg::queue_descriptors)
            pages_.at(selected()) = PhysicalAddress(value);
    }

    static bool relax(unsigned attempt) { return attempt < 4; }

    /// Takes the next buffer for a report. Return: false without one.
    bool report(std::array<std::uint64_t, 3> words, std::uint32_t bytes = 24) {
        const std::uint64_t* const page = pool_.words(pages_[1]);
        if (reported_ == index_of(page, available_at))
            return false;
        const std::uint16_t slot = half_word(page, available_at + 4 + 2 * (reported_ % slots));
        ++reported_;
        std::memcpy(pool_.words(PhysicalAddress(page[2 * slot])), words.data(), sizeof words);
        use(1, slot, bytes);
        return true;
    }

    /// Says that it used a chain, which may be a lie.
    void use(unsigned queue, std::uint32_t head, std::uint32_t bytes) {
        std::uint64_t* const page = pool_.words(pages_[queue]);
        auto* const used = reinterpret_cast<std::byte*>(page) + used_at;
        std::uint16_t index = index_of(page, used_at);
        const std::array element = {head, bytes};
        std::memcpy(used + 4 + sizeof element * (index % slots), element.data(), sizeof element);
        ++index;
        std::memcpy(used + 2, &index, sizeof index);
    }

    [[nodiscard]] bool blocks_unattached() const {
        return get<std::uint8_t>(layout.device + iommu::virtio::config::bypass) == 0;
    }

    [[nodiscard]] unsigned status() const {
        return get<std::uint8_t>(layout.common + iommu::virtio::reg::status);
    }

    template <class T>
    void put(std::uint64_t offset, T value) {
        std::memcpy(&bytes_.at(offset), &value, sizeof value);
    }

    std::uint64_t features = bit(0) | bit(1) | bit(2) | bit(6) | bit(32);
    std::uint16_t queue_slots = 256;
    bool present = true;
    bool refuses_features = false;
    bool silent = false; ///< leaves requests unanswered
    /// The next requests' statuses, in place of the right ones.
    std::vector<std::uint8_t> wrong_statuses;

    /// Of each domain: how many functions it has, and its mappings by their first bytes.
    struct Domain {
        unsigned functions = 0;
        std::map<std::uint64_t, std::uint64_t> mappings; ///< to their last bytes
    };

    std::map<std::uint32_t, Domain> domains;

  private:
    static constexpr unsigned slots = 128;
    static constexpr unsigned available_at = 2048;
    static constexpr unsigned used_at = 2560;

    void reset() {
        domains.clear();
        functions_.clear();
        answered_ = reported_ = 0;
        put<std::uint8_t>(layout.device + iommu::virtio::config::bypass, 1);
    }

    template <class T>
    [[nodiscard]] T get(std::uint64_t offset) const {
        T value{};
        std::memcpy(&value, &bytes_.at(offset), sizeof value);
        return value;
    }

    [[nodiscard]] std::uint16_t selected() const {
        return get<std::uint16_t>(layout.common + iommu::virtio::reg::queue_select);
    }

    [[nodiscard]] static std::uint16_t half_word(const std::uint64_t* page, unsigned byte) {
        return static_cast<std::uint16_t>(page[byte / 8] >> byte % 8 * 8);
    }

    [[nodiscard]] static std::uint16_t index_of(const std::uint64_t* page, unsigned ring) {
        return half_word(page, ring + 2);
    }

    void answer_requests() {
        const std::uint64_t* const page = pool_.words(pages_[0]);
        while (!silent && answered_ != index_of(page, available_at)) {
            const std::uint16_t head = half_word(page, available_at + 4 + 2 * (answered_ % slots));
            const std::uint64_t* const first = page + 2 * head;
            const std::uint64_t* const second = page + 2 * (first[1] >> 48);
            ++answered_;
            const auto bytes = static_cast<std::uint32_t>(first[1]);
            std::uint8_t status = execute(pool_.words(PhysicalAddress(first[0])), bytes);
            if (!wrong_statuses.empty()) {
                status = wrong_statuses.front();
                wrong_statuses.erase(wrong_statuses.begin());
            }
            std::memcpy(pool_.words(PhysicalAddress(align_down(second[0], 12))) +
                            second[0] % 4096 / 8,
                        &status, sizeof status);
            use(0, head, 4);
        }
    }

    /// Return: the request's status.
    std::uint8_t execute(const std::uint64_t* words, std::uint32_t bytes) {
        constexpr std::uint8_t ok = 0;
        constexpr std::uint8_t invalid = 4;
        constexpr std::uint8_t no_entry = 6;
        const auto type = static_cast<unsigned>(words[0] & 0xff);
        const auto number = static_cast<std::uint32_t>(words[0] >> 32);
        const auto function = static_cast<std::uint32_t>(words[1]);
        if ((type <= 2 && bytes != 20) || (type == 3 && bytes != 36) || (type == 4 && bytes != 28))
            return invalid;
        if (type == 1) {
            functions_[function] = number;
            ++domains[number].functions;
            return ok;
        }
        const auto domain = domains.find(number);
        if (domain == domains.end())
            return no_entry;
        auto& mappings = domain->second.mappings;
        if (type == 2) {
            if (functions_.erase(function) == 0)
                return invalid;
            if (--domain->second.functions == 0)
                domains.erase(domain); // as QEMU's does
        } else if (type == 3) {
            if ((words[4] & 3) == 0 || !mappings.emplace(words[1], words[2]).second)
                return invalid;
        } else {
            std::erase_if(mappings, [&](const auto& each) {
                return each.first >= words[1] && each.second <= words[2];
            });
        }
        return ok;
    }

    Pool& pool_;
    std::array<std::byte, 0x3000> bytes_ = {};
    std::array<PhysicalAddress, 2> pages_ = {};
    std::map<std::uint32_t, std::uint32_t> functions_; ///< their domains
    std::uint16_t answered_ = 0;
    std::uint16_t reported_ = 0;
};

} // namespace moat::tests
