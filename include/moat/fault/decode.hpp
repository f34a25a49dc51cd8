// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Decodes lines of kernel logs, emulators and tracefs into fault records; skips other lines.
// diagnose.hpp interprets a record. `moat explain` and log followers call it.
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

/// The program that wrote a line.
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
    kernel,       ///< Linux's rate limit, of any driver
};

[[nodiscard]] constexpr std::string_view name(Origin origin) {
    constexpr std::array<std::string_view, 10> names = {
        "intel",        "amd",  "smmu-v2", "smmu-v3", "riscv",
        "virtio-iommu", "qemu", "vfio",    "trace",   "rate-limit"};
    return names[static_cast<std::size_t>(origin)];
}

/// The content of a line, or of several lines that belong together.
struct Decoded {
    enum class What : std::uint8_t {
        fault,        ///< `record`
        memory_limit, ///< VFIO could not pin memory: `value` is the limit in bytes
        mapped,       ///< `mapping`
        unmapped,     ///< `mapping`
    };

    What what = What::fault;
    Origin origin = Origin::kernel;
    Record record = {};
    /// The range and its direction; `device` is the label. Has a time, but no thread or stack.
    Mapping mapping = {};
    std::uint64_t value = 0;
    /// The device's name in the line ("0000:02:00.0"), if it has one.
    std::string device = {};
    /// The reason in the line's own words, if it has one.
    std::string text = {};
};

/// Decodes a log line by line. Never fails: it skips unknown lines, and other programs' output
/// within a line. Keeps a bounded amount of text. Not thread-safe.
class Decoder {
  public:
    using Sink = FunctionRef<void(const Decoded&)>;

    /// Longer lines are cut.
    static constexpr std::size_t longest_line = 4096;

    /// Decodes one line, without its end. Passes complete results to `sink`: none, one, or two.
    void line(std::string_view line, Sink sink);

    /// Passes on an incomplete result: at the end of a log, or when a follower has seen no line for
    /// a while.
    void end(Sink sink);

  private:
    /// A fault that needs further lines.
    struct Pending {
        enum class Stage : std::uint8_t { none, intel_reason, smmu_words, smmu_names };

        Stage stage = Stage::none;
        Decoded decoded = {};
        bool waits = false;
        unsigned noise = 0; ///< unrelated lines since its last line
        unsigned words_read = 0;
        std::array<std::uint64_t, 4> words = {};
    };

    /// Return: whether the line belongs to the pending fault.
    [[nodiscard]] bool continues(std::string_view line, Sink sink);
    void begin(Decoded decoded, Pending::Stage stage, std::optional<std::uint64_t> time_ns,
               Sink sink);
    void finish(Sink sink);

    Pending pending_;
    std::uint64_t suppressed_ = 0;
};

} // namespace moat::fault
