// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/vfio_kernel/interrupts.hpp"

#include "machine/vfio_host/uapi.hpp"
#include "run/vfio_kernel/argument.hpp"

namespace moat::run::vfio {
namespace {

constexpr std::uint32_t kinds = VFIO_PCI_NUM_IRQS;

[[nodiscard]] std::size_t value_bytes(std::uint32_t data) {
    return data == VFIO_IRQ_SET_DATA_EVENTFD ? sizeof(std::int32_t)
                                             : std::size_t{data == VFIO_IRQ_SET_DATA_BOOL};
}

} // namespace

bool Interrupts::Change::chosen(unsigned index) const {
    return data == VFIO_IRQ_SET_DATA_NONE || values[index] != std::byte{0};
}

int Interrupts::Change::descriptor(unsigned index) const {
    std::int32_t descriptor = -1;
    (void)copy_in(values, index * sizeof descriptor, descriptor);
    return descriptor;
}

unsigned Interrupts::count(Kind kind) const {
    return host_->devices[device_].interrupts[static_cast<std::size_t>(kind)];
}

Answer Interrupts::info(std::span<std::byte> argument) const {
    vfio_irq_info info{};
    if (const int error = take(argument, sizeof info, info))
        return answer(error);
    // Devices without PCI Express report no errors.
    if (info.index >= kinds || (info.index == VFIO_PCI_ERR_IRQ_INDEX && count(Kind::error) == 0))
        return answer(EINVAL);
    info.flags = VFIO_IRQ_INFO_EVENTFD;
    if (info.index == VFIO_PCI_INTX_IRQ_INDEX)
        info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
    else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX || count(Kind::msix) == 0)
        info.flags |= VFIO_IRQ_INFO_NORESIZE; // Linux adds vectors of MSI-X one by one since 6.5
    info.count = count(static_cast<Kind>(info.index));
    give(argument, info);
    return {};
}

Answer Interrupts::set(std::span<const std::byte> argument) {
    constexpr std::uint32_t known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
    vfio_irq_set head{};
    if (const int error = take(argument, sizeof head, head))
        return answer(error);
    if (head.index >= kinds || head.count >= UINT32_MAX - head.start || (head.flags & ~known) != 0)
        return answer(EINVAL);
    const auto kind = static_cast<Kind>(head.index);
    const unsigned available = count(kind);
    if (head.start >= available || head.start + head.count > available)
        return answer(EINVAL);
    const std::uint32_t data = head.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    if (data != VFIO_IRQ_SET_DATA_NONE && data != VFIO_IRQ_SET_DATA_BOOL &&
        data != VFIO_IRQ_SET_DATA_EVENTFD)
        return answer(EINVAL);
    const std::size_t bytes = value_bytes(data) * head.count;
    if (head.argsz - sizeof head < bytes)
        return answer(EINVAL);
    if (argument.size() - sizeof head < bytes)
        return answer(EFAULT);
    const Change change{.data = data,
                        .start = head.start,
                        .count = head.count,
                        .values = argument.subspan(sizeof head, bytes)};
    const std::uint32_t action = head.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    if (kind == Kind::intx && action == VFIO_IRQ_SET_ACTION_MASK)
        return answer(mask_intx(change, true));
    if (kind == Kind::intx && action == VFIO_IRQ_SET_ACTION_UNMASK)
        return answer(mask_intx(change, false));
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER)
        return answer(ENOTTY);
    switch (kind) {
    case Kind::intx:
        return answer(trigger_intx(change));
    case Kind::msi:
    case Kind::msix:
        return answer(trigger_messages(kind, change));
    case Kind::error:
    case Kind::request:
        return answer(trigger_single(kind, change));
    }
    return answer(ENOTTY);
}

int Interrupts::mask_intx(const Change& change, bool masked) {
    if (mode_ != Kind::intx || change.start != 0 || change.count != 1)
        return EINVAL;
    if (change.data == VFIO_IRQ_SET_DATA_EVENTFD)
        return ENOTTY; // Linux unmasks by an eventfd, for KVM; nothing here would signal it
    if (change.chosen(0))
        host_->effects.mask(device_, Kind::intx, masked);
    return 0;
}

int Interrupts::trigger_intx(const Change& change) {
    if (mode_ == Kind::intx && change.count == 0 && change.data == VFIO_IRQ_SET_DATA_NONE) {
        disable(Kind::intx);
        return 0;
    }
    if ((mode_ && mode_ != Kind::intx) || change.start != 0 || change.count != 1)
        return EINVAL;
    if (change.data == VFIO_IRQ_SET_DATA_EVENTFD) {
        if (const int error = bind(Kind::intx, 0, change.descriptor(0)))
            return error;
        mode_ = Kind::intx;
        return 0;
    }
    if (!mode_)
        return EINVAL;
    if (change.chosen(0))
        host_->effects.trigger(device_, Kind::intx, 0);
    return 0;
}

int Interrupts::trigger_messages(Kind kind, const Change& change) {
    if (mode_ == kind && change.count == 0 && change.data == VFIO_IRQ_SET_DATA_NONE) {
        disable(kind);
        return 0;
    }
    if (mode_ && mode_ != kind)
        return EINVAL;
    if (change.data == VFIO_IRQ_SET_DATA_EVENTFD)
        return set_messages(kind, change);
    if (!mode_)
        return EINVAL;
    for (unsigned i = 0; i != change.count; ++i)
        if (change.chosen(i))
            host_->effects.trigger(device_, kind, change.start + i);
    return 0;
}

int Interrupts::set_messages(Kind kind, const Change& change) {
    const bool enables = !mode_;
    if (enables && change.start + change.count == 0)
        return ERANGE;
    if (enables) {
        mode_ = kind;
        messages_ = kind == Kind::msix ? count(kind) : change.start + change.count;
    }
    for (unsigned i = 0; i != change.count; ++i) {
        const unsigned vector = change.start + i;
        int error = vector < messages_ ? 0 : EINVAL;
        if (error == 0)
            error = bind(kind, vector, change.descriptor(i));
        if (error == 0)
            continue;
        for (unsigned undone = change.start; undone <= vector; ++undone)
            (void)bind(kind, undone, -1);
        if (enables)
            disable(kind);
        return error;
    }
    return 0;
}

int Interrupts::trigger_single(Kind kind, const Change& change) {
    if (change.start != 0 || change.count > 1)
        return EINVAL;
    const bool has_eventfd = !bound(kind).empty() && bound(kind).front();
    switch (change.data) {
    case VFIO_IRQ_SET_DATA_NONE:
        if (!has_eventfd)
            return EINVAL;
        if (change.count == 0)
            return bind(kind, 0, -1);
        break;
    case VFIO_IRQ_SET_DATA_BOOL:
        if (change.count == 0)
            return EINVAL;
        if (!change.chosen(0))
            return 0;
        break;
    default:
        return change.count == 0 ? EINVAL : bind(kind, 0, change.descriptor(0));
    }
    if (has_eventfd)
        host_->effects.trigger(device_, kind, 0);
    return 0;
}

int Interrupts::bind(Kind kind, unsigned vector, int descriptor) {
    std::vector<bool>& all = bound(kind);
    if (all.size() <= vector)
        all.resize(vector + 1);
    if (descriptor < 0 && !all[vector])
        return 0;
    const int error =
        host_->effects.set_interrupt(device_, kind, vector, descriptor < 0 ? -1 : descriptor);
    if (error == 0)
        all[vector] = descriptor >= 0;
    return error;
}

void Interrupts::disable(Kind kind) {
    for (unsigned vector = 0; vector != bound(kind).size(); ++vector)
        (void)bind(kind, vector, -1);
    if (mode_ == kind)
        mode_.reset();
}

void Interrupts::disable_all() {
    for (std::uint32_t kind = 0; kind != kinds; ++kind)
        disable(static_cast<Kind>(kind));
}

} // namespace moat::run::vfio
