// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Recorder: the maps, unmaps and refused accesses of a run as a recording (fault/recording.hpp),
// which `moat replay` reads.
#pragma once

#include "moat/fault/diagnose.hpp"

#include "fault/recording.hpp"

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace moat::run {

/// Thread-safe. Records nothing once the file cannot be written.
class Recorder {
  public:
    /// Creates `path`; an empty one records nothing.
    Recorder(const std::string& path, fault::Symbolise symbolise);

    Recorder(const Recorder&) = delete;
    Recorder& operator=(const Recorder&) = delete;

    [[nodiscard]] bool records() const { return records_; }

    /// Devices of one `group` reach the same mappings.
    void device(std::string_view address, std::string_view kind, std::uint32_t group);
    /// `device` is one that reaches the mapping.
    void map(std::string_view device, IovaRange range, fault::Allows allows,
             const fault::Event& event);
    void unmap(std::string_view device, IovaRange range, const fault::Event& event);
    void refused(std::string_view device, const fault::Record& record);
    /// Ends all mappings of the device.
    void removed(std::string_view device, const fault::Event& event);
    void flush();

  private:
    void add(const fault::DmaEvent& event);
    void end();

    std::mutex mutex_;
    std::optional<fault::RecordingWriter> writer_;
    std::atomic<bool> records_ = false; ///< whether there is a writer
};

} // namespace moat::run
