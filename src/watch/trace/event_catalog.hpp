// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// EventCatalog: which of a kernel's trace events moat understands, and their formats. Kernels name
// the DMA events differently; names and fields decide what an event means.
#pragma once

#include "event_format.hpp"

#include <cstdint>
#include <string_view>
#include <unordered_map>

namespace moat::watch {

/// What a trace event means to moat.
enum class Meaning : std::uint8_t {
    map,           ///< one range became mapped
    map_list,      ///< a scatter list became mapped
    unmap,         ///< a range, by its IOVA
    unmap_list,    ///< a scatter list, by its physical addresses
    stack,         ///< the kernel's stack of the event before it
    console,       ///< a line of the kernel's log
    page_fault,    ///< iommu:io_page_fault
    bounced,       ///< swiotlb:swiotlb_bounced
    allocate_call, ///< a probe at the entry of iommu_dma_alloc_iova
    allocate,      ///< a probe at its return
    free,          ///< a probe on free_iova_fast
    fault_handler, ///< a probe on dmar_fault
};

/// The beginning of the groups of moat's probes.
inline constexpr std::string_view probe_group = "moat_";

/// What the event SYSTEM:NAME means; nothing if moat does not use it.
[[nodiscard]] std::optional<Meaning> meaning_of(std::string_view system, const EventFormat& format);

struct CatalogEvent {
    Meaning meaning = Meaning::map;
    EventFormat format = {};
};

class EventCatalog {
  public:
    /// Adds an event from its format file. Return: whether moat uses it.
    bool add(std::string_view system, std::string_view format_text);

    /// The event with that ID, or nullptr.
    [[nodiscard]] const CatalogEvent* find(std::uint16_t id) const;

  private:
    std::unordered_map<std::uint32_t, CatalogEvent> events_;
};

} // namespace moat::watch
