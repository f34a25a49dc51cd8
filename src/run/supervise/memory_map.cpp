// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: proc(5); Linux, include/uapi/linux/fs.h (PROCMAP_QUERY).
#include "run/supervise/memory_map.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <fcntl.h>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace moat::run {

namespace {

/// The question of PROCMAP_QUERY, and its answer.
struct MapQuery {
    std::uint64_t size = sizeof(MapQuery);
    std::uint64_t flags = 0;
    std::uint64_t address = 0;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::uint64_t permissions = 0;
    std::uint64_t page_size = 0;
    std::uint64_t offset = 0;
    std::uint64_t inode = 0;
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    std::uint32_t name_size = 0;
    std::uint32_t build_id_size = 0;
    std::uint64_t name = 0;
    std::uint64_t build_id = 0;
};

constexpr unsigned long ask_map = _IOWR('f', 17, MapQuery);
constexpr std::uint64_t executable_bit = 4;

/// Removes and returns the number at the beginning of `text`, and the character after it.
std::uint64_t take_number(std::string_view& text, int base) {
    std::uint64_t value = 0;
    const char* const end =
        std::from_chars(text.data(), text.data() + text.size(), value, base).ptr;
    const auto used = static_cast<std::size_t>(end - text.data());
    text.remove_prefix(std::min(used + 1, text.size()));
    return value;
}

/// "START-END rwxp OFFSET MAJOR:MINOR INODE    PATH"
[[nodiscard]] MappedFile parse_mapping(std::string_view line) {
    MappedFile mapped;
    mapped.start = take_number(line, 16);
    mapped.end = take_number(line, 16);
    mapped.executable = line.size() > 2 && line[2] == 'x';
    line.remove_prefix(std::min<std::size_t>(5, line.size()));
    mapped.offset = take_number(line, 16);
    const auto major_number = static_cast<unsigned>(take_number(line, 16));
    const auto minor_number = static_cast<unsigned>(take_number(line, 16));
    mapped.file = {.device = makedev(major_number, minor_number), .inode = take_number(line, 10)};
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    mapped.path = line;
    return mapped;
}

} // namespace

std::optional<MappedFile> mapping_at(pid_t process, std::uint64_t address) {
    const std::string path = "/proc/" + std::to_string(process) + "/maps";
    const platform::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 8192> part; // NOLINT(*-member-init): read below
    std::string rest;
    for (;;) {
        const ssize_t size = ::read(file.get(), part.data(), part.size());
        if (size <= 0)
            return std::nullopt;
        rest.append(part.data(), static_cast<std::size_t>(size));
        std::size_t begin = 0;
        for (std::size_t end = 0; (end = rest.find('\n', begin)) != std::string::npos;
             begin = end + 1) {
            const auto line = std::string_view(rest).substr(begin, end - begin);
            std::string_view numbers = line;
            const std::uint64_t start = take_number(numbers, 16);
            if (address < start)
                return std::nullopt;
            if (address < take_number(numbers, 16))
                return parse_mapping(line);
        }
        rest.erase(0, begin);
    }
}

MemoryMap::MemoryMap(pid_t process)
    : process_(process),
      file_(::open(("/proc/" + std::to_string(process) + "/maps").c_str(), O_RDONLY | O_CLOEXEC)) {}

std::optional<MappedFile> MemoryMap::at(std::uint64_t address) const {
    MapQuery query{.address = address};
    if (::ioctl(file_.get(), ask_map, &query) != 0)
        return errno == ENOENT ? std::nullopt : mapping_at(process_, address);
    return MappedFile{
        .start = query.start,
        .end = query.end,
        .offset = query.offset,
        .executable = (query.permissions & executable_bit) != 0,
        .file = {.device = makedev(query.device_major, query.device_minor), .inode = query.inode},
        .path = {}};
}

std::string descriptor_path(pid_t process, int descriptor) {
    return "/proc/" + std::to_string(process) + "/fd/" + std::to_string(descriptor);
}

std::optional<FileIdentity> identify(pid_t process, int descriptor) {
    struct stat status = {};
    if (::stat(descriptor_path(process, descriptor).c_str(), &status) != 0)
        return std::nullopt;
    return FileIdentity{.device = status.st_dev, .inode = status.st_ino};
}

} // namespace moat::run
