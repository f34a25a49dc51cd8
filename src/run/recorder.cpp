// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/recorder.hpp"

#include "platform/file_descriptor.hpp"

#include <fcntl.h>
#include <memory>
#include <unistd.h>

namespace moat::run {

namespace {

using fault::DmaEvent;

[[nodiscard]] fault::WriteBytes append_to(platform::FileDescriptor file) {
    auto shared = std::make_shared<platform::FileDescriptor>(std::move(file));
    return [shared](std::span<const std::uint8_t> bytes) -> Result<void> {
        while (!bytes.empty()) {
            const ssize_t done = ::write(shared->get(), bytes.data(), bytes.size());
            if (done <= 0)
                return fail(ErrorCode::io, "the recording cannot be written");
            bytes = bytes.subspan(static_cast<std::size_t>(done));
        }
        return {};
    };
}

} // namespace

Recorder::Recorder(const std::string& path, fault::Symbolise symbolise) {
    if (path.empty())
        return;
    platform::FileDescriptor file(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (file.get() >= 0)
        writer_.emplace(append_to(std::move(file)), symbolise);
    records_ = writer_.has_value();
}

void Recorder::device(std::string_view address, std::string_view kind, std::uint32_t group) {
    add({.kind = DmaEvent::Kind::device, .device = address, .driver = kind, .group = group});
}

void Recorder::map(std::string_view device, IovaRange range, fault::Allows allows,
                   const fault::Event& event) {
    add({.kind = DmaEvent::Kind::map,
         .time_ns = event.time_ns,
         .thread = static_cast<std::uint32_t>(event.thread),
         .device = device,
         .call = "map",
         .range = range,
         .allows = allows,
         .stack = event.stack});
}

void Recorder::unmap(std::string_view device, IovaRange range, const fault::Event& event) {
    add({.kind = DmaEvent::Kind::unmap,
         .time_ns = event.time_ns,
         .thread = static_cast<std::uint32_t>(event.thread),
         .device = device,
         .call = "unmap",
         .range = range,
         .stack = event.stack});
}

void Recorder::refused(std::string_view device, const fault::Record& record) {
    add({.kind = DmaEvent::Kind::fault,
         .time_ns = record.time_ns.value_or(0),
         .device = device,
         .record = record});
}

void Recorder::removed(std::string_view device, const fault::Event& event) {
    add({.kind = DmaEvent::Kind::removed, .time_ns = event.time_ns, .device = device});
}

void Recorder::flush() {
    if (!records_)
        return;
    const std::lock_guard lock(mutex_);
    if (writer_ && !writer_->flush())
        end();
}

void Recorder::add(const DmaEvent& event) {
    if (!records_)
        return;
    const std::lock_guard lock(mutex_);
    if (writer_ && !writer_->add(event) && !writer_->flush())
        end();
}

void Recorder::end() {
    writer_.reset();
    records_ = false;
}

} // namespace moat::run
