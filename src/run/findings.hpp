// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Findings: stray accesses of the devices and mistakes of the program. Each distinct one is printed
// once; all are written as JSON lines.
#pragma once

#include "moat/core/function_ref.hpp"
#include "moat/fault/diagnose.hpp"
#include "moat/fault/report.hpp"

#include "run/tally.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <unistd.h>
#include <vector>

namespace moat::run {

/// What is known beside the diagnosis.
struct Circumstances {
    std::string_view device;             ///< "nvme 0000:05:00.0"
    fault::Event told = {};              ///< the program's last store to the device's registers
    fault::Event unmapped = {};          ///< the unmap that the finding is about
    std::vector<std::string> notes = {}; ///< one sentence each
};

/// Not thread-safe.
class Findings {
  public:
    using Print = std::function<void(std::string_view text)>;

    /// Appends JSON lines to `path`; none if it is empty. `symbolise` and `tally` outlive it.
    /// Reports name `process`.
    Findings(std::string path, Tally& tally, fault::Symbolise symbolise, Print print,
             std::uint64_t process = static_cast<std::uint64_t>(::getpid()));

    void stray(const fault::Diagnosis& diagnosis, const Circumstances& circumstances);

    /// A wrong that is no stray access: `kind` is its short name, `sentence` the whole of it.
    void remark(std::string_view kind, std::string_view sentence,
                const Circumstances& circumstances);

  private:
    /// What makes two findings the same: kind, device, and the stack of the map or the sentence.
    using Key = std::tuple<std::string, std::string, std::string>;

    [[nodiscard]] bool is_new(const Key& key);
    void print(const std::string& text, const Circumstances& circumstances);
    void append(const std::string& json);

    static constexpr std::size_t most_printed = 100;

    std::string path_;
    Tally& tally_;
    fault::ReportOptions report_;
    Print print_;
    std::map<Key, std::uint64_t> seen_;
};

} // namespace moat::run
