// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Arbitrary bytes as a recording: events or an error, never a crash. Check bytes of the input are
// made right, or almost no input would pass the first record. What was read is written and read
// again.
#include "fault/recording.hpp"
#include "fault/recording_format.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace {

using namespace moat;
using Bytes = std::vector<std::uint8_t>;

void require(bool condition) {
    if (!condition)
        __builtin_trap();
}

[[nodiscard]] fault::ReadBytes read_from(const Bytes& file, std::size_t step) {
    return [&file, step,
            at = std::size_t{0}](std::span<std::uint8_t> bytes) mutable -> Result<std::size_t> {
        const std::size_t count = std::min({bytes.size(), step, file.size() - at});
        std::copy_n(file.begin() + static_cast<std::ptrdiff_t>(at), count, bytes.begin());
        at += count;
        return count;
    };
}

/// The input as bodies, each after a byte with its length.
[[nodiscard]] Bytes framed(std::span<const std::uint8_t> input) {
    Bytes file;
    fault::recording::Check check;
    const auto put = [&](std::uint8_t byte) {
        file.push_back(byte);
        check.add(byte);
    };
    for (const std::uint8_t each : fault::recording::header)
        put(each);
    while (!input.empty()) {
        const std::size_t size = std::min<std::size_t>(input.front() % 128, input.size() - 1);
        put(static_cast<std::uint8_t>(size));
        for (const std::uint8_t each : input.subspan(1, size))
            put(each);
        file.push_back(check.byte());
        input = input.subspan(1 + size);
    }
    return file;
}

/// Return: how many events the file has.
std::size_t read_all(const Bytes& file, std::size_t step, fault::RecordingWriter* copy) {
    fault::RecordingReader reader(read_from(file, step));
    std::size_t count = 0;
    auto event = reader.next();
    for (; event && *event != nullptr; event = reader.next()) {
        ++count;
        for (const std::uintptr_t address : (*event)->stack) {
            std::size_t frames = 0;
            const auto add = [&](const StackFrame&) { ++frames; };
            reader.symbolise(address, add);
            require(frames <= fault::recording::most_frames);
        }
        if (copy != nullptr)
            require(copy->add(**event).has_value());
    }
    require(event || !event.error().sentence().empty());
    require(reader.offset() <= file.size());
    return count;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span input(data, size);
    (void)read_all(Bytes(input.begin(), input.end()), 1 << 20, nullptr);
    const Bytes file = framed(input);
    Bytes copied;
    fault::RecordingWriter writer([&](std::span<const std::uint8_t> bytes) -> Result<void> {
        copied.insert(copied.end(), bytes.begin(), bytes.end());
        return {};
    });
    const std::size_t count = read_all(file, 1 << 20, &writer);
    require(writer.flush().has_value());
    require(read_all(file, 5, nullptr) == count);
    require(read_all(copied, 1 << 20, nullptr) == count);
    return 0;
}
