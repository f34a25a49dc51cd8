// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SpaceRecorder: writes what spaces map, unmap and refuse to a file that `moat replay` reads
// (docs/recording_format.md). MOAT_OPTIONS=record=FILE asks for it.
#pragma once

#include "moat/core/result.hpp"
#include "moat/dma/options.hpp"
#include "moat/fault/report.hpp"

#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>

namespace moat::dma {

/// Thread-safe: all spaces share one lock. Outlives the spaces that use its recorders. A crash may
/// lose the events of the last second before it, but none before a fault.
class SpaceRecorder {
  public:
    /// Creates `file`, and replaces an old one. Writes to `errors` a line when writing fails, after
    /// which it records nothing. `errors` and `symbolise`, which names the addresses of stacks,
    /// outlive it. Errors: io.
    [[nodiscard]] static Result<std::unique_ptr<SpaceRecorder>>
    create(const std::string& file, std::ostream& errors,
           fault::Symbolise symbolise = fault::no_symbols);

    /// Writes what it holds.
    ~SpaceRecorder();

    SpaceRecorder(const SpaceRecorder&) = delete;
    SpaceRecorder& operator=(const SpaceRecorder&) = delete;

    /// For SpaceConfig::recorder of one space: the recording calls its devices `device`. `capture`,
    /// unless it is nullptr, takes the stack of each call.
    [[nodiscard]] Recorder recorder(std::string_view device, CaptureStack capture = nullptr);

    /// Writes what it holds. Errors: io, at this or an earlier write.
    [[nodiscard]] Result<void> flush();

  private:
    class State;

    explicit SpaceRecorder(std::unique_ptr<State> state);

    std::unique_ptr<State> state_;
};

} // namespace moat::dma
