// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// KernelLog: new lines of /dev/kmsg, for instances that do not record printk:console.
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
