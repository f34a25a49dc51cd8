// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "trace_files.hpp"

#include "platform/file_descriptor.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sstream>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace moat::watch {

namespace fs = std::filesystem;

std::optional<std::string> read_file(const fs::path& file) {
    const platform::FileDescriptor in(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    std::string text;
    std::array<char, 65536> part;
    ssize_t bytes = in.get() < 0 ? -1 : 0;
    while (in.get() >= 0 && (bytes = ::read(in.get(), part.data(), part.size())) > 0)
        text.append(part.data(), static_cast<std::size_t>(bytes));
    return bytes < 0 ? std::nullopt : std::optional(std::move(text));
}

std::string read_line(const fs::path& file) {
    std::string text = read_file(file).value_or("");
    text.resize(std::min(text.find('\n'), text.size()));
    return text;
}

int write_file(const fs::path& file, std::string_view text) {
    const platform::FileDescriptor out(::open(file.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (out.get() < 0)
        return errno;
    return ::write(out.get(), text.data(), text.size()) < 0 ? errno : 0;
}

std::vector<std::string> names_in(const fs::path& folder) {
    std::vector<std::string> names;
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
        names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
}

std::expected<fs::path, std::string> find_tracefs(const fs::path& root) {
    std::vector<fs::path> places;
    std::istringstream mounts(read_file(root / "proc/mounts").value_or(""));
    std::string device;
    std::string place;
    std::string type;
    std::string rest;
    while (mounts >> device >> place >> type && std::getline(mounts, rest))
        if (type == "tracefs")
            places.push_back(root / place.substr(1));
    places.push_back(root / "sys/kernel/tracing");
    places.push_back(root / "sys/kernel/debug/tracing"); // mounts itself when it is opened
    bool is_closed = false;
    for (const fs::path& each : places) {
        if (::access((each / "events").c_str(), R_OK | X_OK) == 0)
            return each;
        is_closed = is_closed || errno == EACCES || errno == EPERM;
    }
    if (is_closed)
        return std::unexpected(refusal(root, "cannot read " + places.front().string(), EACCES));
    return std::unexpected("no tracefs is mounted: run `mount -t tracefs tracefs "
                           "/sys/kernel/tracing` as root; the kernel needs CONFIG_FTRACE");
}

std::string refusal(const fs::path& root, const std::string& what, int error_number) {
    const std::string reason = what + " (" + std::strerror(error_number) + "): ";
    const std::string lockdown = read_line(root / "sys/kernel/security/lockdown");
    if (lockdown.find("[confidentiality]") != std::string::npos)
        return reason + "kernel lockdown (confidentiality) denies tracing; boot without "
                        "lockdown=confidentiality";
    if (error_number == EROFS)
        return reason + "tracefs is mounted read-only; run outside the container or remount it";
    if (error_number == EACCES || error_number == EPERM)
        return reason + "run as root";
    return reason + "see the kernel's log";
}

} // namespace moat::watch
