// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// ClientInProcess: a program that is this process: its memory is what the test lends, its
// descriptors are numbers, its standard error a string.
#pragma once

#include "run/client.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <unistd.h>

namespace moat::tests {

class ClientInProcess final : public run::Client {
  public:
    /// `memory` is all that the program has, besides arguments on the stack.
    explicit ClientInProcess(std::span<std::byte> memory) : memory_(memory) {}

    std::map<int, run::File> files; ///< by descriptor
    /// The first byte that was written last, and the one after the last.
    std::pair<std::uint64_t, std::uint64_t> written;

    /// From now on the program has only the first `bytes` of its memory.
    void shrink(std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        memory_ = memory_.first(bytes);
    }

    [[nodiscard]] std::string words() {
        const std::lock_guard lock(mutex_);
        return words_;
    }

    [[nodiscard]] std::size_t read(std::uint64_t address, std::span<std::byte> into) override {
        const auto there = find(address, into.size());
        std::ranges::copy(there, into.begin());
        return there.size();
    }

    [[nodiscard]] std::size_t write(std::uint64_t address,
                                    std::span<const std::byte> from) override {
        const auto there = find(address, from.size());
        std::ranges::copy(from.first(there.size()), there.begin());
        written = {address, address + there.size()};
        return there.size();
    }

    [[nodiscard]] int duplicate(int descriptor) override { return ::dup(descriptor); }

    [[nodiscard]] run::File file_of(int descriptor) override {
        const auto found = files.find(descriptor);
        return found == files.end() ? run::File::none : found->second;
    }

    [[nodiscard]] fault::StackView stack(run::Stacks& stacks) override {
        return stacks.keep(std::array<std::uintptr_t, 1>{0x1234});
    }

    [[nodiscard]] std::uint64_t thread() override { return 7; }

    void print(std::string_view text) override {
        const std::lock_guard lock(mutex_);
        words_ += text;
    }

    /// The argument of the next calls.
    template <class Argument>
    [[nodiscard]] std::uint64_t at(Argument& argument) {
        argument_ = std::as_writable_bytes(std::span(&argument, 1));
        return reinterpret_cast<std::uintptr_t>(&argument);
    }

  private:
    /// The part of the range that the program has.
    [[nodiscard]] std::span<std::byte> find(std::uint64_t address, std::size_t bytes) {
        const std::lock_guard lock(mutex_);
        for (const std::span<std::byte> each : {memory_, argument_}) {
            const auto start = reinterpret_cast<std::uintptr_t>(each.data());
            if (address >= start && address - start < each.size())
                return each.subspan(address - start,
                                    std::min(bytes, each.size() - (address - start)));
        }
        return {};
    }

    std::mutex mutex_;
    std::span<std::byte> memory_;
    std::span<std::byte> argument_;
    std::string words_;
};

} // namespace moat::tests
