// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The recording of `moat audit --record`: the buffers of each audited device, and the accesses that
// its IOMMU refused.
#pragma once

#include "audit/audit.hpp"
#include "fault/recording.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace moat::tools {

class AuditRecording {
  public:
    /// Writes to `file`. Stops the command if it cannot be created.
    explicit AuditRecording(std::string file);

    /// Observes the next audit, after the callbacks that `options` has. This and `machine` outlive
    /// it.
    void observe(machine::Machine& machine, audit::AuditOptions& options);

    /// Writes the audit in the order of times; later ones follow. Stops the command if it cannot.
    void finish(std::string_view driver, machine::Bdf address);

  private:
    struct Noted {
        std::uint64_t time_ns = 0;
        fault::DmaEvent::Kind kind = fault::DmaEvent::Kind::map;
        IovaRange range = {};
        fault::Allows allows = fault::Allows::read_write;
        std::string call = {};
        std::string task = {};
        fault::Record record = {};
        std::uint64_t count = 0;
    };

    void note(Noted noted);
    void note_buffer(const audit::Lived& lived);
    void note_finding(const audit::Finding& finding);

    const std::string file_;
    fault::RecordingWriter writer_;
    machine::Machine* machine_ = nullptr;
    std::multimap<std::uint64_t, Noted> noted_; ///< by time
    /// When the latest buffer of each address was unmapped.
    std::map<Iova, std::uint64_t> unmapped_at_;
    std::uint64_t left_out_ = 0;
    std::uint64_t end_ns_ = 0; ///< of the audits before
    std::uint32_t devices_ = 0;
};

} // namespace moat::tools
