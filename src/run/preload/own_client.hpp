// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// OwnClient: the process that the preloaded library lives in, as its Session reaches it.
#pragma once

#include "run/client.hpp"

#include <atomic>
#include <sys/uio.h>

namespace moat::run {

class OwnClient final : public Client {
  public:
    OwnClient();

    [[nodiscard]] std::size_t read(std::uint64_t address, std::span<std::byte> into) override;
    /// The last 8 bytes are written after the others, at once.
    [[nodiscard]] std::size_t write(std::uint64_t address,
                                    std::span<const std::byte> from) override;
    [[nodiscard]] int duplicate(int descriptor) override;
    [[nodiscard]] File file_of(int descriptor) override;
    [[nodiscard]] fault::StackView stack(Stacks& stacks) override;
    [[nodiscard]] std::uint64_t thread() override;
    void print(std::string_view text) override;

  private:
    using Transfer = decltype(::process_vm_readv);

    /// For a thread whose faults are not caught.
    [[nodiscard]] std::size_t transfer(Transfer* function, std::span<std::byte> local,
                                       std::uint64_t address);

    int standard_error_;
    std::atomic<bool> warned_ = false;
};

} // namespace moat::run
