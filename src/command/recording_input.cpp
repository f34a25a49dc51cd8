// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/recording_input.hpp"

#include "command/picture/traffic_picture.hpp"
#include "command/terminal/output.hpp"
#include "fault/answer.hpp"

#include <nlohmann/json.hpp>

namespace moat::tools {

RecordingFile::RecordingFile(const char* who, const std::string& name)
    : in_(name, std::ios::binary),
      reader_([this](std::span<std::uint8_t> bytes) { return read(bytes); }) {
    if (!in_)
        throw Stop{Exit::bound, std::string(who) + ": cannot open " + name};
}

Result<std::size_t> RecordingFile::read(std::span<std::uint8_t> bytes) {
    in_.clear();
    in_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (in_.bad())
        return fail(ErrorCode::io, "the recording cannot be read");
    return static_cast<std::size_t>(in_.gcount());
}

void follow(watch::Follower& follower, fault::DmaEvent event, watch::FindingSink report) {
    const std::string device = fault::printable(std::string(event.device));
    const std::string driver = fault::printable(std::string(event.driver));
    const std::string call = fault::printable(std::string(event.call));
    event.device = device;
    event.driver = driver;
    event.call = call;
    follower.add(event, report);
}

bool draw_recording(const char* who, const std::string& name, const PictureFiles& pictures) {
    RecordingFile file(who, name);
    const auto symbols = [&](std::uintptr_t address, fault::FrameSink sink) {
        file.reader().symbolise(address, sink);
    };
    TrafficPicture picture(symbols);
    watch::Follower follower({.observer = &picture});
    const auto ignore = [](const watch::Finding&) {};
    auto event = file.reader().next();
    for (; event && *event != nullptr; event = file.reader().next())
        follow(follower, **event, ignore);
    return pictures.write(who, picture.take());
}

} // namespace moat::tools
