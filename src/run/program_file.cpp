// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: elf(5). Go's linker leaves a note of the owner "Go".
#include "run/program_file.hpp"

#include <cstdlib>
#include <cstring>
#include <elf.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>

namespace moat::run {

namespace {

[[nodiscard]] std::string find_in_path(const std::string& name) {
    const char* const folders = std::getenv("PATH");
    if (name.find('/') != std::string::npos || folders == nullptr)
        return name;
    std::string_view rest = folders;
    while (!rest.empty()) {
        const std::string_view folder = rest.substr(0, rest.find(':'));
        std::string path = (std::filesystem::path(folder) / name).string();
        if (::access(path.c_str(), X_OK) == 0)
            return path;
        rest.remove_prefix(folder.size() == rest.size() ? rest.size() : folder.size() + 1);
    }
    return name;
}

template <class Part>
[[nodiscard]] bool read_at(std::ifstream& file, std::uint64_t offset, Part& part) {
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(&part), sizeof part);
    return file.good();
}

[[nodiscard]] bool is_of_go(std::ifstream& file, const Elf64_Phdr& segment) {
    struct {
        Elf64_Nhdr header;
        char owner[4];
    } note{};

    return segment.p_type == PT_NOTE && read_at(file, segment.p_offset, note) &&
           note.header.n_namesz == sizeof note.owner && std::memcmp(note.owner, "Go\0", 4) == 0;
}

} // namespace

std::string_view why_not_preloaded(const std::string& program) {
    std::ifstream file(find_in_path(program), std::ios::binary);
    Elf64_Ehdr header{};
    if (!read_at(file, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(Elf64_Phdr))
        return "";
    bool has_loader = false;
    for (unsigned index = 0; index != header.e_phnum; ++index) {
        Elf64_Phdr segment{};
        if (!read_at(file, header.e_phoff + index * sizeof segment, segment))
            return "";
        if (is_of_go(file, segment))
            return "Go";
        has_loader = has_loader || segment.p_type == PT_INTERP;
        file.clear();
    }
    return has_loader ? "" : "static";
}

} // namespace moat::run
