// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The audit's drivers against a device whose every register, and every byte that it may write, come
// from the input: whatever it says, a driver ends and touches no memory but its buffers.
#include "audit/driver.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <vector>

namespace {

using namespace moat;

/// The input, byte by byte; 0 at its end.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

    std::uint8_t byte() {
        if (size_ == 0)
            return 0;
        --size_;
        return *data_++;
    }

    std::uint64_t word() {
        // Small numbers, single bits and all ones lead further than noise.
        const std::uint8_t shape = byte();
        if (shape < 64)
            return shape;
        if (shape < 128)
            return std::uint64_t{1} << (shape - 64);
        if (shape < 136)
            return ~std::uint64_t{0};
        std::uint64_t value = 0;
        for (unsigned i = 0; i != 8; ++i)
            value = value << 8 | byte();
        return value;
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
};

class HostileRegisters final : public machine::Registers {
  public:
    HostileRegisters(Input& input, ByteCount size) : Registers(size), input_(input) {}

  private:
    [[nodiscard]] std::uint64_t do_read(std::uint64_t, machine::Width) override {
        return input_.word();
    }

    void do_write(std::uint64_t, machine::Width, std::uint64_t) override {}

    Input& input_;
};

class HostileFunction final : public machine::Function {
  public:
    HostileFunction(Input& input, machine::FunctionInfo info)
        : Function(info), input_(input), config_(input, ByteCount(4096)),
          bar_bytes_(std::uint64_t{0x4000} << (input.byte() & 3)) {}

    [[nodiscard]] machine::Registers& config() override { return config_; }

    [[nodiscard]] Result<unsigned> enable_interrupts(unsigned wanted) override {
        if ((input_.byte() & 1) != 0)
            return fail(ErrorCode::unsupported, "no MSI-X");
        return wanted;
    }

    [[nodiscard]] bool take_interrupt(unsigned) override { return (input_.byte() & 3) != 0; }

    [[nodiscard]] Result<void> reset() override { return {}; }

  private:
    [[nodiscard]] Result<std::unique_ptr<machine::Registers>> open_bar(unsigned) override {
        return std::make_unique<HostileRegisters>(input_, bar_bytes_);
    }

    Input& input_;
    HostileRegisters config_;
    ByteCount bar_bytes_;
};

/// Memory of its own for each buffer, so that a sanitizer sees who leaves it.
class Buffers final : public audit::BufferSource {
  public:
    explicit Buffers(Input& input) : input_(input) {}

    [[nodiscard]] Result<audit::Buffer> obtain(const audit::Need& need) override {
        auto& memory = all_.emplace_back((need.size.value() + 15) / 16);
        const std::span bytes(reinterpret_cast<std::byte*>(memory.data()), need.size.value());
        next_ += 0x10000;
        if (need.direction != audit::Direction::to_device)
            device_writes_.push_back(bytes);
        return audit::Buffer{Iova(next_), bytes};
    }

    /// What the device does meanwhile.
    void scribble() {
        for (const auto bytes : device_writes_)
            for (std::uint8_t times = input_.byte() & 7; times != 0; --times)
                bytes[input_.word() % bytes.size()] = static_cast<std::byte>(input_.byte());
    }

  private:
    struct alignas(16) Unit {
        std::array<std::byte, 16> bytes;
    };

    Input& input_;
    std::list<std::vector<Unit>> all_;
    std::vector<std::span<std::byte>> device_writes_;
    std::uint64_t next_ = 0;
};

class HostileMachine final : public machine::Machine {
  public:
    explicit HostileMachine(Buffers& buffers) : buffers_(buffers) {}

    [[nodiscard]] std::string_view name() const override { return "hostile"; }

    [[nodiscard]] Result<std::unique_ptr<machine::Function>> open(machine::Bdf) override {
        return fail(ErrorCode::not_found, "none");
    }

    [[nodiscard]] Result<std::unique_ptr<machine::Domain>> create_domain() override {
        return fail(ErrorCode::unsupported, "none");
    }

    [[nodiscard]] Result<void> attach(machine::Bdf, machine::Domain&) override { return {}; }

    [[nodiscard]] Result<void> detach(machine::Bdf) override { return {}; }

    [[nodiscard]] Result<machine::SharedMemory> allocate(ByteCount, unsigned) override {
        return fail(ErrorCode::no_memory, "none");
    }

    [[nodiscard]] Result<std::uint64_t>
    take_faults(FunctionRef<void(const fault::Record&)>) override {
        return std::uint64_t{0};
    }

    [[nodiscard]] machine::Wait wait_until(FunctionRef<bool()> happened,
                                           std::chrono::nanoseconds) override {
        for (unsigned looks = 0; looks != 8; ++looks) {
            if (happened())
                return machine::Wait::happened;
            buffers_.scribble();
        }
        return machine::Wait::timed_out;
    }

    [[nodiscard]] std::chrono::nanoseconds now() override { return {}; }

  private:
    Buffers& buffers_;
};

machine::FunctionInfo info_of(unsigned choice) {
    constexpr std::array<machine::FunctionInfo, 5> known = {
        {{.address = {}, .vendor = 0x1234, .device = 0x11e8, .class_code = 0x00ff00, .bars = {}},
         {.address = {}, .vendor = 0x1b36, .device = 0x0010, .class_code = 0x010802, .bars = {}},
         {.address = {}, .vendor = 0x1af4, .device = 0x1042, .class_code = 0x010000, .bars = {}},
         {.address = {}, .vendor = 0x8086, .device = 0x2922, .class_code = 0x010601, .bars = {}},
         {.address = {}, .vendor = 0x8086, .device = 0x10d3, .class_code = 0x020000, .bars = {}}}};
    machine::FunctionInfo info = known.at(choice % known.size());
    for (machine::Bar& bar : info.bars)
        bar.kind = machine::BarKind::memory32;
    return info;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    Buffers buffers(input);
    HostileMachine machine(buffers);
    HostileFunction function(input, info_of(input.byte()));
    const auto driver = audit::probe({machine, function, buffers});
    if (!driver)
        return 0;
    const auto operations = (*driver)->operations();
    for (unsigned i = 0; i != 4; ++i) {
        const auto index = static_cast<unsigned>(input.byte() % operations.size());
        audit::Request request{.operation = index,
                               .data = Iova(input.word() & 0xffff'ffff'ffff),
                               .length = ByteCount(input.word()),
                               .position = input.word()};
        // Mostly a length that the operation has.
        if (const audit::Operation& operation = operations[index]; (input.byte() & 7) != 0)
            request.length =
                ByteCount(std::min(operation.longest.value(),
                                   (request.length.value() & 0xfff) * operation.granule.value()));
        std::vector<audit::Buffer> lists;
        if (request.length.value() <= 0x200000)
            for (const audit::Need& need : (*driver)->lists_for(request))
                lists.push_back(*buffers.obtain(need));
        request.lists = lists;
        (void)(*driver)->run(request);
    }
    return 0;
}
