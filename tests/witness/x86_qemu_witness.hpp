// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// QEMU's software MMU as a witness of x86-64 tables, twice: the guest, which runs x86_agent.cpp,
// reports whether an access faults (the walk of TCG, which also sets accessed and dirty); the
// monitor's gva2gpa reports the target (a separate walk, for debuggers).
#pragma once

#include "moat/core/bits.hpp"
#include "moat/core/text.hpp"
#include "moat/page_table/formats/x86_64.hpp"

#include "or_throw.hpp"
#include "platform/memory_file.hpp"
#include "qemu_process.hpp"
#include "witness.hpp"
#include "x86_agent.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace moat::tests {

template <unsigned Levels>
class X86QemuWitness final : public Witness {
  public:
    using Format = formats::X86_64<Levels>;

    static OpenedWitness open() {
        try {
            return std::make_unique<X86QemuWitness>();
        } catch (const QemuProcess::NotInstalled& error) {
            return std::unexpected(std::string(error.what()));
        }
    }

    X86QemuWitness()
        : agent_(memory_.bytes().data()),
          qemu_({"qemu-system-x86_64",
                 "-S",
                 "-nodefaults",
                 "-display",
                 "none",
                 "-accel",
                 "tcg",
                 "-cpu",
                 "max",
                 "-machine",
                 "q35,memory-backend=ram,vmport=off",
                 "-m",
                 "16M",
                 "-object",
                 "memory-backend-file,id=ram,size=16M,share=on,mem-path=" + memory_.path(),
                 "-bios",
                 firmware_path(),
                 "-chardev",
                 "socket,id=done,fd=" + std::to_string(done_.child()),
                 "-device",
                 "isa-debugcon,chardev=done,iobase=" + hexadecimal(X86Agent::done_port)},
                {memory_.descriptor(), firmware_.descriptor(), done_.child()}) {
        done_.close_child();
    }

    [[nodiscard]] GuestMemory tables() const override {
        return {memory_.bytes().data() + tables_start, tables_start, memory_bytes - tables_start};
    }

    /// The features that TCG gives every processor.
    [[nodiscard]] unsigned physical_bits() const override { return 40; }

    [[nodiscard]] unsigned largest_leaf_lg2() const override { return 30; }

    [[nodiscard]] std::optional<SupportPages> support() const override { return X86Agent::pages; }

    std::vector<Answer> ask(PhysicalAddress root, std::span<const Probe> probes) override {
        agent_.prepare(root, bit(5) | (Levels == 5 ? bit(12) : 0), probes); // PAE, LA57
        qemu_.execute("system_reset");
        qemu_.execute("cont");
        or_throw(done_.receive_until(X86Agent::done_character), "QEMU");
        std::vector<Answer> answers;
        for (std::size_t i = 0; i != probes.size(); ++i)
            answers.push_back(agent_.translated(i) ? Answer(physical(probes[i].address))
                                                   : Answer());
        return answers;
    }

  private:
    static constexpr std::size_t memory_bytes = std::size_t{16} << 20;
    static constexpr std::uint64_t tables_start = std::uint64_t{1} << 20;

    static constexpr std::size_t firmware_bytes = std::size_t{64} << 10;

    /// In a ROM whose reset vector jumps to the agent: ljmp $0x1000, $0.
    [[nodiscard]] std::string firmware_path() const {
        constexpr std::array<std::uint8_t, 5> jump = {0xea, 0x00, 0x00, 0x00, 0x10};
        static_assert(X86Agent::pages.start == 0x1000 << 4);
        std::memcpy(firmware_.bytes().data() + firmware_bytes - 16, jump.data(), jump.size());
        return firmware_.path();
    }

    std::uint64_t physical(std::uint64_t address) {
        const std::string answer = qemu_.human("gva2gpa " + hexadecimal(address));
        constexpr std::string_view before = "gpa: 0x";
        const std::size_t found = answer.find(before);
        if (found == std::string::npos)
            throw std::runtime_error("QEMU: no fault at " + hexadecimal(address) +
                                     ", but gva2gpa says " + answer);
        return std::stoull(answer.substr(found + before.size()), nullptr, 16);
    }

    static platform::MemoryFile memory_file(std::size_t bytes) {
        return or_throw(platform::MemoryFile::create("moat witness", ByteCount(bytes)), "memory");
    }

    platform::MemoryFile memory_ = memory_file(memory_bytes);
    platform::MemoryFile firmware_ = memory_file(firmware_bytes);
    X86Agent agent_;
    platform::StreamSocket done_ = socket_to_qemu();
    QemuProcess qemu_;
};

} // namespace moat::tests
