// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/program_symbols.hpp"

#include "moat/core/text.hpp"

#include "platform/stack.hpp"
#include "run/supervise/memory_map.hpp"

#include <elf.h>
#include <fstream>
#include <string>

namespace moat::run {

namespace {

[[nodiscard]] bool lies_at_fixed_addresses(const std::string& path) {
    Elf64_Ehdr header{};
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    return file && header.e_type == ET_EXEC;
}

} // namespace

void symbolise_in(pid_t process, std::uintptr_t return_address,
                  FunctionRef<void(const StackFrame&)> sink) {
    const std::uintptr_t address = return_address - 1; // within the call
    const auto mapped = mapping_at(process, address);
    if (!mapped || mapped->path.empty())
        return sink({.address = return_address});
    if (lies_at_fixed_addresses(mapped->path))
        return platform::symbolise_program(mapped->path, return_address, sink);
    const std::string module = mapped->path.substr(mapped->path.rfind('/') + 1) + '+' +
                               hexadecimal(address - mapped->start + mapped->offset);
    sink({.address = return_address, .module = module});
}

} // namespace moat::run
