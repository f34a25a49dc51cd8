// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/supervise/region_access.hpp"

#include <algorithm>
#include <array>
#include <string>

namespace moat::run {

namespace {

/// The mapping of a region that was used last, during one instruction.
class RegionMap {
  public:
    RegionMap(TracedProgram& program, const OpenFiles& files) : program_(program), files_(files) {}

    /// Return: whether a region is mapped at `address`.
    [[nodiscard]] bool find(std::uint64_t address) {
        if (open_ && address >= mapped_.start && address < mapped_.end)
            return true;
        auto mapped = program_.memory().at(address);
        if (!mapped)
            return false;
        const auto open = files_.find(mapped->file);
        if (!open)
            return false;
        open_ = open;
        mapped_ = *std::move(mapped);
        return true;
    }

    /// Where `address`, which was found, lies. Nothing in a process that inherited the mapping.
    [[nodiscard]] std::optional<Session::Window> window(std::uint64_t address) {
        if (open_->process != program_.number() || program_.session_if_any() == nullptr)
            return std::nullopt;
        return program_.session().window(open_->file, mapped_.offset + (address - mapped_.start),
                                         1);
    }

  private:
    TracedProgram& program_;
    const OpenFiles& files_;
    std::optional<OpenFile> open_;
    MappedFile mapped_;
};

} // namespace

bool serve_access(StoppedThread& thread, TracedProgram& program, const OpenFiles& files,
                  std::uint64_t address) {
    RegionMap regions(program, files);
    if (!regions.find(address))
        return false;
    program.serve(&thread, true);
    Registers registers = thread.registers();
    std::array<std::byte, 15> code{};
    const std::size_t bytes = program.read(registers.instruction_pointer, code);
    const auto load = [&](std::uint64_t at, std::span<std::byte> into) {
        if (!regions.find(at))
            return program.read(at, into) == into.size();
        if (const auto window = regions.window(at))
            program.session().load(*window, into);
        else
            std::ranges::fill(into, std::byte{0xff});
        return true;
    };
    const auto store = [&](std::uint64_t at, std::span<const std::byte> from) {
        if (!regions.find(at))
            return program.write(at, from) == from.size();
        if (const auto window = regions.window(at))
            program.session().store(*window, from);
        return true;
    };
    const auto step = emulate(registers, std::span(code).first(bytes), address, {load, store});
    program.serve(nullptr, false);
    if (step) {
        thread.set_registers(registers, *step);
        return true;
    }
    std::array<char, 256> line{};
    program.print_line(std::string(line.data(), step.error().describe(line)));
    return false;
}

} // namespace moat::run
