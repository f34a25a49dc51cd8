// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Explains decoded lines: one function says what happened, another what to check.
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
    return record.precision == Precision::page ? "the page at IOVA " + start : "IOVA " + start;
}

[[nodiscard]] std::string because(Reason reason) {
    switch (reason) {
    case Reason::not_present:
        return "nothing is mapped there for the device";
    case Reason::permission:
        return "nothing is mapped there, or the mapping does not allow this access";
    case Reason::address_size:
        return "the address is wider than the IOMMU or its tables can translate";
    case Reason::not_attached:
        return "the IOMMU has no valid entry for the device, which is in no domain";
    case Reason::blocked:
        return "the device is in a domain that blocks every access";
    case Reason::pasid:
        return "its PASID is not configured";
    case Reason::malformed_table:
        return "an entry of the IOMMU's own tables is malformed";
    case Reason::table_access:
        return "the IOMMU could not read its own tables";
    case Reason::bad_request:
        return "the device may not send this kind of request";
    case Reason::out_of_bounds:
        return "the address lies outside the buffer";
    default:
        return "the report does not say why";
    }
}

/// The reasons that do not concern an access to memory.
[[nodiscard]] std::string other_event(const Record& record) {
    const std::string device = "Device " + to_string(record.source);
    switch (record.reason) {
    case Reason::interrupt:
        return device + " sent an interrupt message that interrupt remapping blocked.";
    case Reason::invalidation:
        return device + " did not answer an invalidation of its address cache in time.";
    case Reason::hardware:
        return "The IOMMU reported an error in its hardware or configuration.";
    case Reason::events_lost:
        return "The kernel lost faults: it neither printed nor recorded them.";
    default:
        return {};
    }
}

void add_addresses(const Record& record, std::vector<std::string>& look_at) {
    const std::uint64_t address = record.where.start().value();
    if (address < 0x10000)
        look_at.emplace_back("The address is close to 0: the driver left a descriptor's address "
                             "empty, or passed a null buffer.");
    else if (address >= 0xfee00000 && address <= 0xfeefffff)
        look_at.emplace_back(
            "x86 devices write interrupts to 0xfee00000-0xfeefffff: this one sent a "
            "message-signalled interrupt outside interrupt remapping.");
    else if (address >> 47 != 0)
        look_at.emplace_back("The address is very high: the driver may have passed a CPU virtual "
                             "address instead of a DMA address.");
}

void add_for_access(const LogEvent& decoded, std::vector<std::string>& look_at) {
    const Record& record = decoded.record;
    add_addresses(record, look_at);
    look_at.emplace_back("Which mapping ends just before the address, or begins just after it? A "
                         "length or descriptor may be too long.");
    look_at.emplace_back("Did the driver unmap a buffer there before the device finished? Compare "
                         "with the time of the last completion.");
    if (record.access == Access::write)
        look_at.emplace_back("Is the buffer mapped with DMA_FROM_DEVICE or DMA_BIDIRECTIONAL?");
    if (decoded.origin == Origin::intel)
        look_at.emplace_back("VT-d prints \"access is not set\" for a missing mapping, too, and "
                             "reports the page, not the byte.");
    if (decoded.origin != Origin::tracepoint)
        look_at.emplace_back(
            "To name the mapping, record the trace events iommu:* and dma:* and pass "
            "them to this command together with the log.");
}

[[nodiscard]] std::vector<std::string> things_to_look_at(const LogEvent& decoded) {
    std::vector<std::string> look_at;
    switch (decoded.record.reason) {
    case Reason::not_attached:
    case Reason::blocked:
    case Reason::pasid:
        look_at.emplace_back("Is a driver bound to the device? After an unbind or a reset, the "
                             "device may still be active.");
        look_at.emplace_back("Does the device use another function's requester ID? Then the kernel "
                             "needs a quirk for DMA aliases.");
        break;
    case Reason::malformed_table:
    case Reason::table_access:
    case Reason::hardware:
        look_at.emplace_back("The IOMMU's own tables or hardware failed: check firmware and kernel "
                             "versions, and memory errors in the same log.");
        break;
    case Reason::interrupt:
        look_at.emplace_back("Does firmware leave the device active, or does a driver program "
                             "interrupts by hand? Boot with \"intremap=off\" to compare.");
        break;
    case Reason::invalidation:
        look_at.emplace_back("The device hangs or its link is down: look for PCIe errors (AER), "
                             "and boot with \"pci=noats\".");
        break;
    case Reason::events_lost:
        look_at.emplace_back("Count the IOMMU's interrupts in /proc/interrupts: the kernel limits "
                             "the rate of its log.");
        break;
    case Reason::address_size:
        add_addresses(decoded.record, look_at);
        look_at.emplace_back("Compare the device's DMA mask with the IOMMU's address width.");
        break;
    case Reason::bad_request:
        look_at.emplace_back("The device uses ATS or PASID, which is not enabled for it.");
        break;
    default:
        add_for_access(decoded, look_at);
        break;
    }
    return look_at;
}

[[nodiscard]] Explanation explain_limit(const LogEvent& decoded) {
    return {"VFIO could not pin memory for a device: the process may lock at most " +
                to_string(ByteCount(decoded.bytes.value_or(0))) + ".",
            {"Raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=, memlock in limits.conf).",
             "VFIO counts pinned memory per container, iommufd per user."}};
}

} // namespace

Explanation explain(const LogEvent& decoded) {
    if (decoded.kind == LogEvent::Kind::memory_limit)
        return explain_limit(decoded);
    if (decoded.kind != LogEvent::Kind::fault && decoded.kind != LogEvent::Kind::suppressed)
        return {std::string(name(decoded.kind)) + ": " + decoded.text, {}};
    const Record& record = decoded.record;
    Explanation explanation;
    explanation.happened = other_event(record);
    if (explanation.happened.empty())
        explanation.happened = "Device " + to_string(record.source) + " " + tried(record) + " " +
                               place(record) + "; " + because(record.reason) + ".";
    if (record.suppressed != 0)
        explanation.happened +=
            " " + std::to_string(record.suppressed) + " earlier faults were not printed.";
    explanation.look_at = things_to_look_at(decoded);
    return explanation;
}

} // namespace moat::fault
