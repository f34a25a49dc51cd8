// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "recording_file.hpp"

#include "platform/file_descriptor.hpp"

#include <fcntl.h>
#include <memory>

namespace moat::watch {

Result<fault::RecordingWriter> create_recording(const std::filesystem::path& file,
                                                fault::Symbolise symbolise) {
    constexpr mode_t readable_by_all = 0644;
    const auto out = std::make_shared<platform::FileDescriptor>(
        ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, readable_by_all));
    if (out->get() < 0)
        return platform::fail_errno("cannot create the recording");
    const auto write = [out](std::span<const std::uint8_t> bytes) -> Result<void> {
        while (!bytes.empty()) {
            const ssize_t written = ::write(out->get(), bytes.data(), bytes.size());
            if (written < 0 && errno == EINTR)
                continue;
            if (written <= 0)
                return platform::fail_errno("cannot write the recording");
            bytes = bytes.subspan(static_cast<std::size_t>(written));
        }
        return {};
    };
    return fault::RecordingWriter(write, symbolise);
}

} // namespace moat::watch
