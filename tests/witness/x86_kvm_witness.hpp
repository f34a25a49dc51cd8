// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A processor behind /dev/kvm as a witness of x86-64 tables: with EPT or NPT the silicon's own MMU,
// otherwise KVM's. The guest runs x86_agent.cpp. KVM reports the target of an access, since every
// leaf under test maps an address without guest memory.
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"
#include "moat/page_table/formats/x86_64.hpp"

#include "or_throw.hpp"
#include "platform/memory_file.hpp"
#include "witness.hpp"
#include "x86_agent.hpp"

#include <cstdint>
#include <cstring>
#include <expected>
#include <fcntl.h>
#include <linux/kvm.h>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/ioctl.h>
#include <vector>

namespace moat::tests {

/// kvm_cpuid2, whose declaration in <linux/kvm.h> contains an empty structure: in C++ that has a
/// size, which is part of the requests' numbers.
struct KvmCpuid {
    struct Header {
        std::uint32_t count;
        std::uint32_t padding;
    };

    static constexpr std::uint32_t most_entries = 256;
    static constexpr unsigned long get_supported = _IOWR(KVMIO, 0x05, Header);
    static constexpr unsigned long set = _IOW(KVMIO, 0x90, Header);

    Header header{.count = most_entries, .padding = 0};
    kvm_cpuid_entry2 entries[most_entries]{};
};

/// The properties that /dev/kvm reports of itself and its guests.
class Kvm {
  public:
    Kvm() : device_(opened(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm")) {
        if (::ioctl(device_.get(), KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
            throw std::runtime_error("/dev/kvm: another API version");
        if (::ioctl(device_.get(), KvmCpuid::get_supported, &cpuid_) < 0)
            throw_errno("KVM_GET_SUPPORTED_CPUID");
    }

    [[nodiscard]] int device() const { return device_.get(); }

    [[nodiscard]] const KvmCpuid& cpuid() const { return cpuid_; }

    [[nodiscard]] bool has_five_levels() const { return (leaf(7).ecx & bit(16)) != 0; }

    [[nodiscard]] bool has_1g_leaves() const { return (leaf(0x8000'0001).edx & bit(26)) != 0; }

    [[nodiscard]] unsigned physical_bits() const { return leaf(0x8000'0008).eax & 0xff; }

  private:
    [[nodiscard]] const kvm_cpuid_entry2& leaf(std::uint32_t function) const {
        for (const kvm_cpuid_entry2& each : std::span(cpuid_.entries, cpuid_.header.count))
            if (each.function == function && each.index == 0)
                return each;
        throw std::runtime_error("KVM: no CPUID leaf " + hexadecimal(function));
    }

    platform::FileDescriptor device_;
    KvmCpuid cpuid_;
};

/// A guest with one processor. KVM may cache what it read of the tables, and does not notice
/// changes: each state of the tables gets a new guest.
class KvmGuest {
  public:
    KvmGuest(const Kvm& kvm, const platform::Mapping& memory)
        : machine_(opened(::ioctl(kvm.device(), KVM_CREATE_VM, 0), "KVM_CREATE_VM")),
          processor_(create_processor(memory)),
          run_(or_throw(platform::Mapping::create(processor_.get(),
                                                  ByteCount(static_cast<std::uint64_t>(::ioctl(
                                                      kvm.device(), KVM_GET_VCPU_MMAP_SIZE, 0)))),
                        "kvm_run")) {
        call(KvmCpuid::set, &kvm.cpuid(), "KVM_SET_CPUID2");
    }

    /// Long mode, at the agent's entry.
    void start(PhysicalAddress root, std::uint64_t cr4) {
        kvm_sregs system{};
        call(KVM_GET_SREGS, &system, "KVM_GET_SREGS");
        system.cs = segment(8, 11);
        system.cs.l = 1;
        system.ss = segment(16, 3);
        system.ds = system.es = system.fs = system.gs = system.ss;
        system.gdt.base = X86Agent::gdt();
        system.gdt.limit = 23;
        system.cr0 = 0x8001'0031; // PG, WP, NE, ET, PE
        system.cr3 = root.value();
        system.cr4 = cr4;
        system.efer = 0xd00; // LME, LMA, NXE
        call(KVM_SET_SREGS, &system, "KVM_SET_SREGS");
        kvm_regs registers{};
        registers.rip = X86Agent::long_mode_entry();
        registers.rflags = 2;
        call(KVM_SET_REGS, &registers, "KVM_SET_REGS");
    }

    /// Runs until an access hits an address without memory: its physical address; or until the
    /// agent is done: nothing.
    std::optional<std::uint64_t> run() {
        call(KVM_RUN, nullptr, "KVM_RUN");
        const kvm_run& state = *reinterpret_cast<const kvm_run*>(run_.bytes().data());
        if (state.exit_reason == KVM_EXIT_MMIO)
            return state.mmio.phys_addr;
        if (state.exit_reason != KVM_EXIT_IO || state.io.port != X86Agent::done_port)
            throw std::runtime_error("KVM_RUN: exit reason " + std::to_string(state.exit_reason));
        return {};
    }

    std::uint64_t rbx() {
        kvm_regs registers{};
        call(KVM_GET_REGS, &registers, "KVM_GET_REGS");
        return registers.rbx;
    }

  private:
    /// All of the address space, as the agent's GDT has it.
    static kvm_segment segment(std::uint16_t selector, std::uint8_t type) {
        kvm_segment all{};
        all.limit = ~0U;
        all.selector = selector;
        all.type = type;
        all.present = all.s = all.g = 1;
        return all;
    }

    platform::FileDescriptor create_processor(const platform::Mapping& memory) {
        // Three pages that Intel's real mode needs, above all other guest memory.
        ::ioctl(machine_.get(), KVM_SET_TSS_ADDR, 0xfffb'd000);
        kvm_userspace_memory_region region{};
        region.memory_size = memory.bytes().size();
        region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory.bytes().data());
        if (::ioctl(machine_.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0)
            throw_errno("KVM_SET_USER_MEMORY_REGION");
        return opened(::ioctl(machine_.get(), KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    }

    void call(unsigned long request, const void* argument, const char* what) {
        if (::ioctl(processor_.get(), request, argument) < 0)
            throw_errno(what);
    }

    platform::FileDescriptor machine_;
    platform::FileDescriptor processor_;
    platform::Mapping run_;
};

template <unsigned Levels>
class X86KvmWitness final : public Witness {
  public:
    using Format = formats::X86_64<Levels>;

    static OpenedWitness open() {
        try {
            auto witness = std::make_unique<X86KvmWitness>();
            if (Levels == 5 && !witness->kvm_.has_five_levels())
                return std::unexpected("KVM here has no 5-level paging (CPUID.7:ECX.LA57)");
            witness->try_out();
            return witness;
        } catch (const std::exception& error) {
            return std::unexpected(std::string(error.what()));
        }
    }

    X86KvmWitness() : agent_(memory_.bytes().data()) {}

    [[nodiscard]] GuestMemory tables() const override {
        return {memory_.bytes().data() + tables_start, tables_start, memory_bytes - tables_start};
    }

    [[nodiscard]] unsigned physical_bits() const override { return kvm_.physical_bits(); }

    [[nodiscard]] unsigned largest_leaf_lg2() const override {
        return kvm_.has_1g_leaves() ? 30 : 21;
    }

    [[nodiscard]] std::optional<SupportPages> support() const override { return X86Agent::pages; }

    std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) override {
        constexpr std::uint64_t cr4 = bit(5) | (Levels == 5 ? bit(12) : 0); // PAE, LA57
        agent_.prepare(root, cr4, probes);
        KvmGuest guest(kvm_, memory_);
        guest.start(root, cr4);
        std::vector<Answer> answers(probes.size());
        while (const auto touched = guest.run())
            answers.at(X86Agent::index(guest.rbx())) = touched;
        for (std::size_t i = 0; i != probes.size(); ++i)
            if (agent_.translated(i) != answers[i].has_value())
                throw std::runtime_error("KVM: an access with neither a place nor a page fault");
        return answers;
    }

  private:
    static constexpr std::size_t memory_bytes = std::size_t{16} << 20;
    static constexpr std::uint64_t tables_start = std::uint64_t{1} << 20;

    /// One page fault, in tables that map only the agent; throws if KVM fails even that.
    void try_out() {
        const auto table = [this](unsigned level) {
            return reinterpret_cast<Word*>(memory_.bytes().data() + tables_start + (level << 12));
        };
        for (unsigned level = 1; level != Levels; ++level)
            table(level)[0] = Format::template table_word<1>(tables_start + ((level - 1) << 12));
        for (std::uint64_t page = 0; page != X86Agent::pages.bytes >> 12; ++page)
            table(0)[(X86Agent::pages.start >> 12) + page] = Format::template leaf_word<0>(
                X86Agent::pages.physical + (page << 12),
                Format::attribute_word(X86Agent::pages.attributes), 0);
        const Probe probe{.address = bit(30), .access = Access::read};
        if (ask(PhysicalAddress(tables_start + ((Levels - 1) << 12)), {&probe, 1})[0])
            throw std::runtime_error("KVM finds memory in tables where there is none");
        std::memset(memory_.bytes().data() + tables_start, 0, Levels << 12);
    }

    Kvm kvm_;
    platform::Mapping memory_ =
        or_throw(platform::Mapping::create(-1, ByteCount(memory_bytes)), "memory");
    X86Agent agent_;
};

} // namespace moat::tests
