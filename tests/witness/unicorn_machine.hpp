// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A processor of the unicorn library with a little memory; it records an access to any other
// physical address, without effect. riscv_unicorn_witness.hpp and arm_unicorn_witness.hpp choose
// the processor and set up its MMU.
#pragma once

#include "moat/core/text.hpp"

#include "witness.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <unicorn/unicorn.h>
#include <vector>

namespace moat::tests {

class UnicornMachine {
  public:
    UnicornMachine(uc_arch arch, uc_mode mode) {
        check(uc_open(arch, mode, &engine_), "uc_open");
        check(uc_hook_add(engine_, &interrupt_hook_, UC_HOOK_INTR,
                          reinterpret_cast<void*>(&on_interrupt), this, 1, 0),
              "uc_hook_add");
    }

    ~UnicornMachine() { uc_close(engine_); }

    UnicornMachine(const UnicornMachine&) = delete;
    UnicornMachine& operator=(const UnicornMachine&) = delete;

    /// Puts memory at the given places, in order of their addresses, and watches the space between.
    /// Since unicorn requires virtual addresses to be mapped like physical ones, that is all 2^64
    /// bytes.
    void attach(std::initializer_list<GuestMemory> places) {
        std::uint64_t next = 0;
        for (const GuestMemory& place : places) {
            watch(next, place.physical - next);
            check(uc_mem_map_ptr(engine_, place.physical, place.bytes, UC_PROT_ALL, place.host),
                  "uc_mem_map_ptr");
            next = place.physical + place.bytes;
        }
        watch(next, std::uint64_t{0} - next);
    }

    template <class Value>
    void write_register(int id, const Value& value) {
        check(uc_reg_write(engine_, id, &value), "uc_reg_write");
    }

    /// The result of the instructions from `start` up to `end`, exclusive.
    struct Outcome {
        std::optional<std::uint64_t> touched;   ///< the first watched address
        std::optional<std::uint32_t> exception; ///< the processor's exception number
    };

    Outcome run(std::uint64_t start, std::uint64_t end) {
        outcome_ = {};
        check(uc_emu_start(engine_, start, end, 0, 0), "uc_emu_start");
        return outcome_;
    }

    [[nodiscard]] uc_engine* engine() const { return engine_; }

  private:
    struct Watched {
        UnicornMachine* machine;
        std::uint64_t start;
    };

    void watch(std::uint64_t start, std::uint64_t bytes) {
        if (bytes == 0)
            return;
        watched_.push_back(std::make_unique<Watched>(this, start));
        void* const self = watched_.back().get();
        check(uc_mmio_map(engine_, start, bytes, &on_read, self, &on_write, self), "uc_mmio_map");
    }

    static void check(uc_err error, const char* call) {
        if (error != UC_ERR_OK)
            throw std::runtime_error(std::string(call) + ": " + uc_strerror(error));
    }

    static void touch(void* self, std::uint64_t offset) {
        const auto* const watched = static_cast<const Watched*>(self);
        if (!watched->machine->outcome_.touched)
            watched->machine->outcome_.touched = watched->start + offset;
    }

    static std::uint64_t on_read(uc_engine*, std::uint64_t offset, unsigned, void* self) {
        touch(self, offset);
        return 0;
    }

    static void on_write(uc_engine*, std::uint64_t offset, unsigned, std::uint64_t, void* self) {
        touch(self, offset);
    }

    static void on_interrupt(uc_engine* engine, std::uint32_t number, void* self) {
        static_cast<UnicornMachine*>(self)->outcome_.exception = number;
        uc_emu_stop(engine);
    }

    uc_engine* engine_ = nullptr;
    uc_hook interrupt_hook_{};
    std::vector<std::unique_ptr<Watched>> watched_;
    Outcome outcome_;
};

/// The witness's memory for code and tables, aligned for the largest table.
class UnicornMemory {
  public:
    static constexpr std::size_t bytes = std::size_t{16} << 20;
    static constexpr std::size_t code_bytes = std::size_t{64} << 10;

    explicit UnicornMemory(std::uint64_t physical)
        : host_(static_cast<std::byte*>(std::aligned_alloc(std::size_t{1} << 20, bytes))),
          physical_(physical) {
        std::memset(host_.get(), 0, bytes);
    }

    [[nodiscard]] GuestMemory all() const { return {host_.get(), physical_, bytes}; }

    [[nodiscard]] GuestMemory code() const { return {host_.get(), physical_, code_bytes}; }

    [[nodiscard]] GuestMemory tables() const {
        constexpr std::size_t offset = std::size_t{1} << 20;
        return {host_.get() + offset, physical_ + offset, bytes - offset};
    }

    void write(std::size_t offset, std::span<const std::uint32_t> instructions) {
        std::memcpy(host_.get() + offset, instructions.data(), instructions.size_bytes());
    }

    void write(std::size_t offset, Word word) {
        std::memcpy(host_.get() + offset, &word, sizeof word);
    }

  private:
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };

    std::unique_ptr<std::byte[], Free> host_;
    std::uint64_t physical_;
};

} // namespace moat::tests
