// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernel's log by /dev/kmsg: all that it still has; or, as KernelLog, new lines, for instances
// that do not record printk:console.
#pragma once

#include "platform/file_descriptor.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace moat::watch {

struct KernelLogLine {
    std::uint64_t time_ns = 0; ///< of the kernel's scheduler clock
    std::string text = {};
};

/// The line of one record: "4,1234,5879770,-;DMAR: ..."; nothing if it is none.
[[nodiscard]] std::optional<KernelLogLine> parse_log_record(std::string_view record);

/// All records that the kernel's log still has, as /dev/kmsg prints them; nothing if it cannot be
/// read.
[[nodiscard]] std::optional<std::string> read_kernel_log(const std::filesystem::path& root);

class KernelLog {
  public:
    /// Begins behind the last line. Without the file there are no lines.
    explicit KernelLog(const std::filesystem::path& root);

    [[nodiscard]] int descriptor() const { return file_.get(); }

    /// The next line, without blocking. Skips lines that were overwritten.
    [[nodiscard]] std::optional<KernelLogLine> next();

  private:
    platform::FileDescriptor file_;
};

} // namespace moat::watch
