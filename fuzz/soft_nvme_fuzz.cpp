// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The NVMe model over memory of arbitrary bytes: queues, lists and commands that no driver writes.
// Every access stays within what the bus was asked for, and every command ends.
#include "machine/soft/nvme.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace {

using namespace moat;
using namespace moat::machine::soft;
using machine::Width;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

/// 64 KiB from address 0 on; beyond them nothing is mapped.
class FlatBus final : public BusMaster {
  public:
    [[nodiscard]] ByteCount read(Iova from, std::span<std::byte> into) override {
        const ByteCount here = reachable(from, into.size());
        std::memcpy(into.data(), memory.data() + (here.value() == 0 ? 0 : from.value()),
                    here.value());
        return here;
    }

    [[nodiscard]] ByteCount write(Iova to, std::span<const std::byte> from) override {
        const ByteCount here = reachable(to, from.size());
        std::memcpy(memory.data() + (here.value() == 0 ? 0 : to.value()), from.data(),
                    here.value());
        return here;
    }

    void interrupt(unsigned vector) override { require(vector < Nvme::most_queues); }

    std::array<std::byte, 0x10000> memory{};

  private:
    [[nodiscard]] ByteCount reachable(Iova at, std::size_t size) {
        require(++accesses_ < 1'000'000);
        if (at.value() >= memory.size())
            return {};
        return ByteCount(std::min<std::uint64_t>(size, memory.size() - at.value()));
    }

    std::uint64_t accesses_ = 0;
};

/// A bound on what one command may make the device do is what ends this.
void run(Nvme& nvme, FlatBus& bus) {
    for (unsigned steps = 0; nvme.step(bus); ++steps)
        require(steps < 100'000);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const NvmeOptions small{.capacity = ByteCount(0x10000)};
    Nvme nvme(small);
    FlatBus bus;
    nvme.write(0, 0x24, Width::bits32, 15U << 16 | 15U);
    nvme.write(0, 0x28, Width::bits64, 0x0000);
    nvme.write(0, 0x30, Width::bits64, 0x8000);
    nvme.write(0, 0x14, Width::bits32, 6U << 16 | 4U << 20 | 1U);
    run(nvme, bus); // until it is ready
    // The first four bytes say how it misbehaves and which doorbells ring; the rest is memory.
    std::array<std::uint8_t, 4> head{};
    std::memcpy(head.data(), data, std::min(size, head.size()));
    nvme.misbehave(
        {static_cast<Misdeed>(head[0] % misdeed_count), std::uint64_t{1} << head[1] % 64});
    if (size > head.size())
        std::memcpy(bus.memory.data(), data + head.size(),
                    std::min(size - head.size(), bus.memory.size()));
    for (unsigned round = 0; round != 4; ++round) {
        nvme.write(0, 0x1000, Width::bits32, (head[2] + 4 * round) % 16);
        run(nvme, bus);
        for (unsigned queue = 1; queue != Nvme::most_queues; ++queue)
            nvme.write(0, 0x1000 + 8 * queue, Width::bits32, (head[3] + round) % 16);
        run(nvme, bus);
    }
    return 0;
}
