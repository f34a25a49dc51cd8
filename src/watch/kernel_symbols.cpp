// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "kernel_symbols.hpp"

#include "moat/core/text.hpp"

#include "core/parse.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <system_error>

namespace moat::watch {

namespace {

/// Functions beyond the last symbol of the kernel have no end: none is longer than this.
constexpr std::uint64_t longest_function = 1U << 20;

} // namespace

KernelSymbols::KernelSymbols(std::string_view kallsyms) : modules_(1) {
    while (!kallsyms.empty()) {
        std::string_view line = take_until(kallsyms, '\n');
        const std::string_view digits = take_until(line, ' ');
        const std::string_view kind = take_until(line, ' ');
        const std::string_view name = take_until(line, '\t');
        Symbol symbol{.start = number_in(digits, 16).value_or(0)};
        const bool is_code = kind == "t" || kind == "T" || kind == "w" || kind == "W";
        if (symbol.start == 0 || !is_code || name.empty())
            continue;
        if (line.starts_with('[') && line.ends_with(']')) { // modules' symbols are in one run each
            if (modules_.back() != line)
                modules_.emplace_back(line);
            symbol.module = static_cast<std::uint32_t>(modules_.size() - 1);
        }
        symbol.name_at = static_cast<std::uint32_t>(names_.size());
        symbol.name_bytes = static_cast<std::uint32_t>(name.size());
        names_ += name;
        symbols_.push_back(symbol);
    }
    std::sort(symbols_.begin(), symbols_.end(),
              [](const Symbol& a, const Symbol& b) { return a.start < b.start; });
}

KernelSymbols KernelSymbols::read(const std::filesystem::path& root) {
    std::ifstream file(root / "proc/kallsyms", std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    return KernelSymbols(text);
}

const KernelSymbols::Symbol* KernelSymbols::find(std::uintptr_t address) const {
    const auto after =
        std::upper_bound(symbols_.begin(), symbols_.end(), address,
                         [](std::uint64_t at, const Symbol& symbol) { return at < symbol.start; });
    if (after == symbols_.begin() || address - std::prev(after)->start >= longest_function)
        return nullptr;
    return &*std::prev(after);
}

void KernelSymbols::operator()(std::uintptr_t address, fault::FrameSink sink) const {
    const Symbol* const symbol = find(address);
    if (symbol == nullptr)
        return sink(StackFrame{.address = address});
    std::string text = names_.substr(symbol->name_at, symbol->name_bytes);
    if (text.find("trace_event_raw_event_") != std::string::npos)
        return;
    text += '+' + hexadecimal(address - symbol->start);
    if (symbol->module != 0)
        text += ' ' + modules_[symbol->module];
    sink(StackFrame{.address = address, .function = text});
}

void CurrentKernelSymbols::operator()(std::uintptr_t address, fault::FrameSink sink) {
    if (!symbols_.knows(address) && Clock::now() >= read_again_at_) {
        symbols_ = KernelSymbols::read();
        read_again_at_ = Clock::now() + std::chrono::seconds(1);
    }
    symbols_(address, sink);
}

} // namespace moat::watch
