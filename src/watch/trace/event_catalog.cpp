// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "event_catalog.hpp"

#include <optional>
#include <utility>

namespace moat::watch {

namespace {

/// Linux 6.12: dma_map_page, dma_map_resource, dma_alloc_pages; later: dma_map_phys. A list has an
/// array of addresses where the others have one.
std::optional<Meaning> meaning_of_dma(const EventFormat& format) {
    const std::string_view name = format.name;
    if (name.ends_with("_err"))
        return std::nullopt;
    if (name.starts_with("dma_map") || name.starts_with("dma_alloc")) {
        if (format.find("dma_addrs") != nullptr)
            return Meaning::map_list;
        return format.find("dma_addr") == nullptr ? std::nullopt : std::optional(Meaning::map);
    }
    if (name.starts_with("dma_unmap") || name.starts_with("dma_free")) {
        if (format.find("addrs") != nullptr)
            return Meaning::unmap_list;
        const bool has_address =
            format.find("addr") != nullptr || format.find("dma_addr") != nullptr;
        return has_address ? std::optional(Meaning::unmap) : std::nullopt;
    }
    return std::nullopt; // dma_sync_*
}

std::optional<Meaning> meaning_of_probe(std::string_view name) {
    if (name == "alloc_call")
        return Meaning::allocate_call;
    if (name == "alloc")
        return Meaning::allocate;
    if (name == "free")
        return Meaning::free;
    if (name == "dma_iova_link")
        return Meaning::map;
    if (name == "dma_iova_unlink" || name == "dma_iova_destroy")
        return Meaning::unmap;
    return name == "fault" ? std::optional(Meaning::fault_handler) : std::nullopt;
}

} // namespace

std::optional<Meaning> meaning_of(std::string_view system, const EventFormat& format) {
    if (system == "dma")
        return meaning_of_dma(format);
    if (system.starts_with(probe_group))
        return meaning_of_probe(format.name);
    if (system == "ftrace" && format.name == "kernel_stack")
        return Meaning::stack;
    if (system == "printk" && format.name == "console")
        return Meaning::console;
    if (system == "iommu" && format.name == "io_page_fault")
        return Meaning::page_fault;
    if (system == "swiotlb" && format.name == "swiotlb_bounced")
        return Meaning::bounced;
    return std::nullopt;
}

bool EventCatalog::add(std::string_view system, std::string_view format_text) {
    auto format = parse_event_format(format_text);
    if (!format)
        return false;
    const auto meaning = meaning_of(system, *format);
    if (!meaning)
        return false;
    const std::uint32_t id = format->id;
    events_.insert_or_assign(id, CatalogEvent{.meaning = *meaning, .format = std::move(*format)});
    return true;
}

const CatalogEvent* EventCatalog::find(std::uint16_t id) const {
    const auto found = events_.find(id);
    return found == events_.end() ? nullptr : &found->second;
}

} // namespace moat::watch
