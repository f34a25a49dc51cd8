// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The CPU's view of a model: its registers, configuration space and interrupts.
#include "soft_function.hpp"

#include <algorithm>

namespace moat::machine::soft {

namespace {

void check_access(std::uint64_t offset, Width width, ByteCount size) {
    const auto bytes = static_cast<std::uint64_t>(width);
    MOAT_CHECK(offset % bytes == 0 && offset < size.value(),
               "an access to registers is aligned and inside");
}

} // namespace

std::uint64_t BarRegisters::read(std::uint64_t offset, Width width) {
    check_access(offset, width, size_);
    return model_.read(index_, offset, width);
}

void BarRegisters::write(std::uint64_t offset, Width width, std::uint64_t value) {
    check_access(offset, width, size_);
    model_.write(index_, offset, width, value);
}

ConfigRegisters::ConfigRegisters(Slot& slot) : slot_(slot) {
    const FunctionInfo& info = slot.info();
    put(pci::vendor_id, info.vendor, 2);
    put(pci::vendor_id + 2, info.device, 2);
    put(pci::class_revision, std::uint64_t{info.class_code} << 8, 4);
}

void ConfigRegisters::put(unsigned offset, std::uint64_t value, unsigned bytes) {
    for (unsigned at = 0; at != bytes; ++at)
        bytes_[offset + at] = static_cast<std::uint8_t>(value >> 8 * at);
}

std::uint64_t ConfigRegisters::read(std::uint64_t offset, Width width) {
    check_access(offset, width, size());
    put(pci::command, pci::command_memory | (slot_.master ? pci::command_master : 0U), 2);
    std::uint64_t value = 0;
    for (unsigned at = 0; at != static_cast<unsigned>(width); ++at)
        value |= std::uint64_t{bytes_[offset + at]} << 8 * at;
    return value;
}

void ConfigRegisters::write(std::uint64_t offset, Width width, std::uint64_t value) {
    check_access(offset, width, size());
    if (offset == pci::command && width != Width::bits8)
        slot_.master = (value & pci::command_master) != 0;
}

SoftFunction::SoftFunction(Slot& slot) : slot_(slot), config_(slot) {
    slot_.open = true;
}

SoftFunction::~SoftFunction() {
    slot_.master = false;
    slot_.enabled_vectors = 0;
    slot_.open = false;
}

Result<Registers*> SoftFunction::bar(unsigned index) {
    if (index >= bars_.size() || info().bars[index].kind == BarKind::absent)
        return fail(ErrorCode::not_found, "the function has no such BAR", {"bar", index});
    if (!bars_[index])
        bars_[index] =
            std::make_unique<BarRegisters>(slot_.model(), index, info().bars[index].size);
    return bars_[index].get();
}

Result<unsigned> SoftFunction::enable_interrupts(unsigned wanted) {
    if (!slot_.attached)
        return fail(ErrorCode::refused, "interrupts need a domain");
    if (slot_.model().vectors() == 0)
        return fail(ErrorCode::unsupported, "the function has no interrupts", {"wanted", wanted});
    slot_.enabled_vectors = std::clamp(wanted, 1U, slot_.model().vectors());
    return slot_.enabled_vectors;
}

bool SoftFunction::take_interrupt(unsigned vector) {
    if (vector >= slot_.enabled_vectors || !slot_.raised.test(vector))
        return false;
    slot_.raised.reset(vector);
    return true;
}

Result<void> SoftFunction::reset() {
    slot_.model().reset();
    slot_.master = false;
    slot_.enabled_vectors = 0;
    slot_.raised.reset();
    return {};
}

} // namespace moat::machine::soft
