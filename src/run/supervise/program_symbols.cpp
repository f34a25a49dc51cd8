// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/program_symbols.hpp"

#include "platform/stack.hpp"
#include "run/supervise/memory_map.hpp"

#include <elf.h>
#include <fstream>
#include <optional>
#include <string>

namespace moat::run {

namespace {

/// The address at which what lies at `offset` of a file was linked; nothing if it is not loaded.
[[nodiscard]] std::optional<std::uint64_t> linked_address(const std::string& path,
                                                          std::uint64_t offset) {
    std::ifstream file(path, std::ios::binary);
    Elf64_Ehdr header{};
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    file.seekg(static_cast<std::streamoff>(header.e_phoff));
    for (unsigned number = 0; file && number != header.e_phnum; ++number) {
        Elf64_Phdr part{};
        file.read(reinterpret_cast<char*>(&part), sizeof part);
        if (file && part.p_type == PT_LOAD && offset - part.p_offset < part.p_filesz)
            return part.p_vaddr + (offset - part.p_offset);
    }
    return std::nullopt;
}

} // namespace

void symbolise_in(pid_t process, std::uintptr_t return_address,
                  FunctionRef<void(const StackFrame&)> sink) {
    const std::uintptr_t address = return_address - 1; // within the call
    const auto mapped = mapping_at(process, address);
    if (!mapped || !mapped->path.starts_with('/'))
        return sink({.address = return_address});
    const std::uint64_t offset = address - mapped->start + mapped->offset;
    const std::string module = mapped->path.substr(mapped->path.rfind('/') + 1);
    const StackFrame known{.address = return_address, .module = module};
    if (const auto linked = linked_address(mapped->path, offset))
        platform::symbolise_in_file(mapped->path, *linked, known, sink);
    else
        sink(known);
}

} // namespace moat::run
