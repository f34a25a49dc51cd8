// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Plain words for decoded lines: one function says what happened, one what to look at.
#include "moat/fault/explain.hpp"

#include "moat/fault/text.hpp"

namespace moat::fault {

namespace {

[[nodiscard]] std::string tried(const Record& record) {
    switch (record.access) {
    case Access::read:
        return "tried to read";
    case Access::write:
        return "tried to write";
    case Access::execute:
        return "tried to fetch instructions from";
    case Access::unknown:
        break;
    }
    return "tried to access";
}

[[nodiscard]] std::string place(const Record& record) {
    if (record.precision == Precision::none)
        return "memory";
    const std::string start = hexadecimal(record.where.start().value());
    return record.precision == Precision::page ? "something in the page at IOVA " + start
                                               : "IOVA " + start;
}

[[nodiscard]] std::string because(Reason reason) {
    switch (reason) {
    case Reason::not_present:
        return "nothing is mapped there for it";
    case Reason::permission:
        return "nothing is mapped there for it, or not for this kind of access";
    case Reason::address_size:
        return "the address is wider than the IOMMU or its tables can translate";
    case Reason::not_attached:
        return "the IOMMU has no valid entry for the device: it is in no domain";
    case Reason::blocked:
        return "the device is in a domain that refuses everything";
    case Reason::pasid:
        return "its PASID is not set up";
    case Reason::malformed_table:
        return "an entry of the IOMMU's own tables is malformed";
    case Reason::table_access:
        return "the IOMMU could not read its own tables";
    case Reason::bad_request:
        return "the device may not make a request of this kind";
    case Reason::out_of_bounds:
        return "it lies outside of the buffer";
    default:
        return "the report does not say why";
    }
}

/// The reasons that are about something else than an access to memory.
[[nodiscard]] std::string other_event(const Record& record) {
    const std::string device = "Device " + to_string(record.source);
    switch (record.reason) {
    case Reason::interrupt:
        return device + " sent an interrupt message that interrupt remapping refused.";
    case Reason::invalidation:
        return device + " did not answer in time when its address cache was to be invalidated.";
    case Reason::hardware:
        return "The IOMMU reports an error of its own hardware or configuration.";
    case Reason::events_lost:
        return "Faults happened that were not printed or recorded.";
    default:
        return {};
    }
}

void add_addresses(const Record& record, std::vector<std::string>& look_at) {
    const std::uint64_t address = record.where.start().value();
    if (address < 0x10000)
        look_at.emplace_back("The address is close to 0: a descriptor whose address was never "
                             "filled in, or a null buffer.");
    else if (address >= 0xfee00000 && address <= 0xfeefffff)
        look_at.emplace_back("0xfee00000 to 0xfeefffff is where interrupts are sent on x86: the "
                             "device wrote a message-signalled interrupt outside of remapping.");
    else if (address >> 47 != 0)
        look_at.emplace_back("The address is very high: a CPU's virtual address may have been "
                             "handed to the device in place of a DMA address.");
}

void add_for_access(const Decoded& decoded, std::vector<std::string>& look_at) {
    const Record& record = decoded.record;
    add_addresses(record, look_at);
    look_at.emplace_back("Which mapping ends just before, or begins just after, the address? A "
                         "length or a descriptor that is too long runs into the guard behind it.");
    look_at.emplace_back("Was a buffer unmapped there while the device still had it? Compare with "
                         "the time of the last completion.");
    if (record.access == Access::write)
        look_at.emplace_back("Is the buffer mapped for the device to write (DMA_FROM_DEVICE), not "
                             "only to read?");
    if (decoded.origin == Origin::intel)
        look_at.emplace_back("VT-d says \"access is not set\" for a missing mapping as well, and "
                             "reports pages: the exact byte is not known.");
    if (decoded.origin != Origin::tracepoint)
        look_at.emplace_back(
            "The events iommu:map, iommu:unmap and dma:* of tracefs, given to this "
            "command together with the log, name the mapping.");
}

[[nodiscard]] std::vector<std::string> things_to_look_at(const Decoded& decoded) {
    std::vector<std::string> look_at;
    switch (decoded.record.reason) {
    case Reason::not_attached:
    case Reason::blocked:
    case Reason::pasid:
        look_at.emplace_back("Is a driver bound to the device, and did it attach? After an unbind "
                             "or a reset in between, the device was still active.");
        look_at.emplace_back("Does the device use another function's requester ID? Then it needs a "
                             "quirk for DMA aliases.");
        break;
    case Reason::malformed_table:
    case Reason::table_access:
    case Reason::hardware:
        look_at.emplace_back("This is about the IOMMU's own tables or hardware: firmware and "
                             "kernel versions, and memory errors in the same log.");
        break;
    case Reason::interrupt:
        look_at.emplace_back("Firmware that leaves a device active, or a driver that programs "
                             "interrupts by hand; \"intremap=off\" tells whether it matters.");
        break;
    case Reason::invalidation:
        look_at.emplace_back("The device hangs or its link is down: look for PCIe errors (AER), "
                             "and try \"pci=noats\".");
        break;
    case Reason::events_lost:
        look_at.emplace_back("Count the IOMMU's interrupts in /proc/interrupts: kernel logs are "
                             "rate-limited and lossy.");
        break;
    case Reason::address_size:
        add_addresses(decoded.record, look_at);
        look_at.emplace_back("The device's DMA mask, and the IOMMU's address width.");
        break;
    case Reason::bad_request:
        look_at.emplace_back("ATS or PASID is used by the device and not enabled for it.");
        break;
    default:
        add_for_access(decoded, look_at);
        break;
    }
    return look_at;
}

[[nodiscard]] Explanation explain_limit(const Decoded& decoded) {
    return {"VFIO could not pin memory for a device: the process may lock no more than " +
                to_string(ByteCount(decoded.value)) + ".",
            {"Raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, memlock in limits.conf).",
             "What is pinned counts each container's mappings; with iommufd it counts by user."}};
}

} // namespace

Explanation explain(const Decoded& decoded) {
    if (decoded.what == Decoded::What::memory_limit)
        return explain_limit(decoded);
    const Record& record = decoded.record;
    Explanation explanation;
    explanation.happened = other_event(record);
    if (explanation.happened.empty())
        explanation.happened = "Device " + to_string(record.source) + " " + tried(record) + " " +
                               place(record) + "; " + because(record.reason) + ".";
    if (record.suppressed != 0)
        explanation.happened +=
            " " + std::to_string(record.suppressed) + " faults before it were not printed.";
    explanation.look_at = things_to_look_at(decoded);
    return explanation;
}

} // namespace moat::fault
