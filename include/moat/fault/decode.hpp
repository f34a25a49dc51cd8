// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Lines of kernel logs, emulators and tracefs, read into fault records; noise is passed over.
// What a record means is diagnose.hpp's affair. Fed by `moat explain` and by log followers.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/mapping.hpp"
#include "moat/fault/record.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moat::fault {

/// Whose words a line is in.
enum class Origin : std::uint8_t {
    intel,        ///< Linux's VT-d driver
    amd,          ///< Linux's AMD-Vi driver
    smmu_v2,      ///< Linux's arm-smmu driver
    smmu_v3,      ///< Linux's arm-smmu-v3 driver
    riscv,        ///< Linux's RISC-V IOMMU driver
    virtio_iommu, ///< Linux's virtio-iommu driver
    qemu,         ///< the emulator, on its standard error
    vfio,         ///< Linux's VFIO
    tracepoint,   ///< tracefs
    kernel,       ///< Linux's rate limit, for any driver
};

[[nodiscard]] constexpr std::string_view name(Origin origin) {
    constexpr std::array<std::string_view, 10> names = {
        "intel",        "amd",  "smmu-v2", "smmu-v3", "riscv",
        "virtio-iommu", "qemu", "vfio",    "trace",   "rate-limit"};
    return names[static_cast<std::size_t>(origin)];
}

/// What a line, or some lines that belong together, said.
struct Decoded {
    enum class What : std::uint8_t {
        fault,        ///< `record`
        memory_limit, ///< VFIO could not pin: `value` is the limit in bytes
        mapped,       ///< `mapping`
        unmapped,     ///< `mapping`
    };

    What what = What::fault;
    Origin origin = Origin::kernel;
    Record record = {};
    /// The range and what it allows; the label is `device`. Only with a time, no thread or stack.
    Mapping mapping = {};
    std::uint64_t value = 0;
    /// The device as the line names it ("0000:02:00.0"), where it does.
    std::string device = {};
    /// The hardware's reason in the line's words, where it has any.
    std::string text = {};
};

/// Reads a log line by line. Never fails: what is not understood is noise. Lines of other sources
/// may lie anywhere, also within a line. Keeps a bounded amount of text. Not thread-safe.
class Decoder {
  public:
    using Sink = FunctionRef<void(const Decoded&)>;

    /// Longer lines are cut.
    static constexpr std::size_t longest_line = 4096;

    /// Reads one line, without its end. `sink` gets what is complete: nothing, one, or two.
    void line(std::string_view line, Sink sink);

    /// Hands out what waits for lines that did not come: at the end of a log, or when a follower
    /// has seen no line for a while.
    void end(Sink sink);

  private:
    /// A fault whose report is not complete, and of which lines are still expected.
    struct Pending {
        enum class Stage : std::uint8_t { none, intel_reason, smmu_words, smmu_names };

        Stage stage = Stage::none;
        Decoded decoded = {};
        bool waits = false;
        unsigned noise = 0; ///< lines since the last that belonged to it
        unsigned words_read = 0;
        std::array<std::uint64_t, 4> words = {};
    };

    /// Return: whether the line continued what waits.
    [[nodiscard]] bool continues(std::string_view line, Sink sink);
    void begin(Decoded decoded, Pending::Stage stage, std::optional<std::uint64_t> time_ns,
               Sink sink);
    void finish(Sink sink);

    Pending pending_;
    std::uint64_t suppressed_ = 0;
};

} // namespace moat::fault
