// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Source: DWARF 4, section 6.4; System V ABI for x86-64, section 3.6; Linux Standard Base, section
// 10.6.1 (.eh_frame).
#include "run/supervise/unwind_table.hpp"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <fstream>
#include <span>
#include <string_view>
#include <tuple>

namespace moat::run {

namespace {

constexpr std::size_t register_count = std::tuple_size_v<decltype(FrameRegisters::values)>;

/// Reads numbers one after the other. After the end, all are 0 and `good` is false.
class Reader {
  public:
    Reader() = default;

    /// `address` is that of the first byte.
    Reader(std::span<const std::byte> bytes, std::uint64_t address)
        : bytes_(bytes), address_(address) {}

    [[nodiscard]] bool good() const { return good_; }

    [[nodiscard]] bool at_end() const { return bytes_.empty() || !good_; }

    [[nodiscard]] std::uint64_t address() const { return address_; }

    template <class Number>
    Number take() {
        Number number{};
        if (bytes_.size() < sizeof number) {
            good_ = false;
            return number;
        }
        std::memcpy(&number, bytes_.data(), sizeof number);
        skip(sizeof number);
        return number;
    }

    void skip(std::uint64_t count) {
        if (count > bytes_.size()) {
            good_ = false;
            count = bytes_.size();
        }
        bytes_ = bytes_.subspan(count);
        address_ += count;
    }

    /// The next `count` bytes, which are skipped here.
    Reader part(std::uint64_t count) {
        const Reader rest(bytes_.first(std::min<std::uint64_t>(count, bytes_.size())), address_);
        skip(count);
        return rest;
    }

    std::uint64_t take_unsigned() { return take_leb().value; }

    std::int64_t take_signed() {
        const Leb leb = take_leb();
        const bool negative = leb.bits < 64 && (leb.value >> (leb.bits - 1) & 1) != 0;
        return static_cast<std::int64_t>(negative ? leb.value | ~std::uint64_t{0} << leb.bits
                                                  : leb.value);
    }

    std::string take_text() {
        std::string text;
        for (char each = 0; (each = take<char>()) != '\0' && text.size() < 8;)
            text += each;
        return text;
    }

  private:
    struct Leb {
        std::uint64_t value = 0;
        unsigned bits = 0;
    };

    Leb take_leb() {
        Leb leb;
        std::uint8_t byte = 0;
        do {
            byte = take<std::uint8_t>();
            if (leb.bits < 64)
                leb.value |= std::uint64_t{byte & 0x7fU} << leb.bits;
            leb.bits += 7;
        } while ((byte & 0x80) != 0 && leb.bits < 70);
        return leb;
    }

    std::span<const std::byte> bytes_;
    std::uint64_t address_ = 0;
    bool good_ = true;
};

struct Rule {
    enum class Kind : std::uint8_t { same, saved, unknown };
    Kind kind = Kind::same;
    std::int64_t offset = 0; ///< from the frame's address, of a saved register
};

/// How a frame's registers are found at one place of its code.
struct Row {
    std::uint64_t base = FrameRegisters::stack_pointer;
    std::int64_t base_offset = 0; ///< of the frame's address from the register `base`
    bool is_known = true;
    std::array<Rule, register_count> rules = {};
};

/// What the functions of a compilation have in common.
struct Common {
    std::uint64_t code_factor = 1;
    std::int64_t data_factor = 1;
    bool has_augmentation = false;
    Reader instructions;
};

constexpr std::uint8_t four_signed_bytes = 0x0b;
constexpr std::uint8_t four_signed_bytes_from_here = 0x1b;

[[nodiscard]] std::optional<Common> read_common(Reader entry) {
    Common common;
    const auto version = entry.take<std::uint8_t>();
    const std::string augmentation = entry.take_text();
    common.code_factor = entry.take_unsigned();
    common.data_factor = entry.take_signed();
    const std::uint64_t column = version == 1 ? entry.take<std::uint8_t>() : entry.take_unsigned();
    if (augmentation.starts_with('z')) {
        common.has_augmentation = true;
        Reader data = entry.part(entry.take_unsigned());
        for (const char each : augmentation.substr(1)) {
            if (each == 'R' && data.take<std::uint8_t>() != four_signed_bytes_from_here)
                return std::nullopt;
            if (each == 'L')
                data.skip(1);
            if (each == 'P') // a personality, with the encoding of its address
                data.skip((data.take<std::uint8_t>() & 0x0f) == four_signed_bytes ? 4 : 8);
        }
    } else if (!augmentation.empty()) {
        return std::nullopt;
    }
    common.instructions = entry;
    if (!entry.good() || column != FrameRegisters::return_address)
        return std::nullopt;
    return common;
}

/// Runs the instructions of an entry until the code's place is reached.
class RowProgram {
  public:
    RowProgram(const Common& common, std::uint64_t start, std::uint64_t wanted)
        : common_(common), place_(start), wanted_(wanted) {}

    /// Return: the row; nothing if an instruction is not understood.
    [[nodiscard]] std::optional<Row> run(Reader entry) {
        Reader first = common_.instructions;
        while (!first.at_end())
            execute(first);
        initial_ = row_;
        while (!entry.at_end() && place_ <= wanted_)
            execute(entry);
        return row_.is_known && entry.good() && first.good() ? std::optional(row_) : std::nullopt;
    }

  private:
    /// What follows holds for later places.
    void advance(std::uint64_t units) { place_ += units * common_.code_factor; }

    void set(std::uint64_t number, Rule rule) {
        if (number < row_.rules.size())
            row_.rules[number] = rule;
    }

    void save(std::uint64_t number, std::int64_t factored) {
        set(number, {Rule::Kind::saved, factored * common_.data_factor});
    }

    void restore(std::uint64_t number) {
        if (number < row_.rules.size())
            row_.rules[number] = initial_.rules[number];
    }

    void execute(Reader& in) {
        const auto byte = in.take<std::uint8_t>();
        const std::uint64_t low = byte & 0x3fU;
        switch (byte >> 6) {
        case 1:
            return advance(low);
        case 2:
            return save(low, static_cast<std::int64_t>(in.take_unsigned()));
        case 3:
            return restore(low);
        default:
            return execute_extended(in, byte);
        }
    }

    void execute_extended(Reader& in, std::uint8_t code) {
        switch (code) {
        case 0x00:
            return;
        case 0x02:
            return advance(in.take<std::uint8_t>());
        case 0x03:
            return advance(in.take<std::uint16_t>());
        case 0x04:
            return advance(in.take<std::uint32_t>());
        case 0x05: {
            const std::uint64_t number = in.take_unsigned();
            return save(number, static_cast<std::int64_t>(in.take_unsigned()));
        }
        case 0x06:
            return restore(in.take_unsigned());
        case 0x07:
            return set(in.take_unsigned(), {Rule::Kind::unknown});
        case 0x08:
            return set(in.take_unsigned(), {});
        case 0x0a:
            if (remembered_.size() < 64)
                remembered_.push_back(row_);
            return;
        case 0x0b:
            if (remembered_.empty()) {
                row_.is_known = false;
                return;
            }
            row_ = remembered_.back();
            remembered_.pop_back();
            return;
        case 0x0c:
            row_.base = in.take_unsigned();
            row_.base_offset = static_cast<std::int64_t>(in.take_unsigned());
            row_.is_known = true;
            return;
        case 0x0d:
            row_.base = in.take_unsigned();
            return;
        case 0x0e:
            row_.base_offset = static_cast<std::int64_t>(in.take_unsigned());
            return;
        case 0x10: // by an expression
            set(in.take_unsigned(), {Rule::Kind::unknown});
            return in.skip(in.take_unsigned());
        case 0x11: {
            const std::uint64_t number = in.take_unsigned();
            return save(number, in.take_signed());
        }
        case 0x2e: // the size of arguments
            (void)in.take_unsigned();
            return;
        default: // the frame's address by an expression, and rarer ones
            row_.is_known = false;
            return in.skip(~std::uint64_t{0});
        }
    }

    const Common& common_;
    std::uint64_t place_;
    std::uint64_t wanted_;
    Row row_;
    Row initial_;
    std::vector<Row> remembered_;
};

[[nodiscard]] std::optional<FrameRegisters> caller(const FrameRegisters& frame, const Row& row,
                                                   UnwindTable::ReadStack stack) {
    if (row.base >= register_count)
        return std::nullopt;
    const std::uint64_t address =
        frame.values[row.base] + static_cast<std::uint64_t>(row.base_offset);
    FrameRegisters above = frame;
    for (std::size_t number = 0; number != register_count; ++number) {
        const Rule& rule = row.rules[number];
        if (rule.kind == Rule::Kind::unknown)
            above.values[number] = 0;
        if (rule.kind != Rule::Kind::saved)
            continue;
        const auto saved = stack(address + static_cast<std::uint64_t>(rule.offset));
        if (!saved)
            return std::nullopt;
        above.values[number] = *saved;
    }
    above.values[FrameRegisters::stack_pointer] = address;
    if (row.rules[FrameRegisters::return_address].kind != Rule::Kind::saved)
        return std::nullopt; // the outermost
    return above;
}

} // namespace

namespace {

/// Reads `count` values at `offset`. Return: whether the file has them.
template <class Value>
[[nodiscard]] bool read_at(std::ifstream& file, std::uint64_t offset, std::uint64_t count,
                           std::vector<Value>& values) {
    constexpr std::uint64_t most_bytes = 256 << 20;
    file.seekg(0, std::ios::end);
    const auto end = static_cast<std::uint64_t>(file.tellg());
    if (!file || offset > end || count > (end - offset) / sizeof(Value) ||
        count > most_bytes / sizeof(Value))
        return false;
    values.resize(count);
    file.seekg(static_cast<std::streamoff>(offset));
    file.read(reinterpret_cast<char*>(values.data()),
              static_cast<std::streamsize>(count * sizeof(Value)));
    return file.good();
}

[[nodiscard]] bool has_name(const Elf64_Shdr& section, std::span<const char> names,
                            std::string_view name) {
    return section.sh_name < names.size() && names.size() - section.sh_name > name.size() &&
           std::string_view(names.data() + section.sh_name, name.size() + 1) ==
               std::string(name) + '\0';
}

} // namespace

UnwindTable::UnwindTable(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<Elf64_Ehdr> header;
    std::vector<Elf64_Phdr> parts;
    std::vector<Elf64_Shdr> sections;
    std::vector<char> names;
    if (!read_at(file, 0, 1, header) || std::memcmp(header[0].e_ident, ELFMAG, SELFMAG) != 0 ||
        header[0].e_phentsize != sizeof(Elf64_Phdr) ||
        header[0].e_shentsize != sizeof(Elf64_Shdr) ||
        !read_at(file, header[0].e_phoff, header[0].e_phnum, parts) ||
        !read_at(file, header[0].e_shoff, header[0].e_shnum, sections))
        return;
    for (const Elf64_Phdr& each : parts)
        if (each.p_type == PT_LOAD)
            segments_.push_back({each.p_offset, each.p_vaddr, each.p_filesz});
    const unsigned names_at = header[0].e_shstrndx;
    if (names_at >= sections.size() ||
        !read_at(file, sections[names_at].sh_offset, sections[names_at].sh_size, names))
        return;
    for (const Elf64_Shdr& each : sections)
        if (has_name(each, names, ".eh_frame") && each.sh_type != SHT_NOBITS &&
            read_at(file, each.sh_offset, each.sh_size, bytes_)) {
            address_ = each.sh_addr;
            index_functions();
        }
}

void UnwindTable::index_functions() {
    Reader in(bytes_, address_);
    while (!in.at_end()) {
        const std::uint64_t entry_at = in.address();
        const auto size = in.take<std::uint32_t>();
        if (size == 0 || size == ~std::uint32_t{0})
            break; // the end; or a size of 64 bits, which is not in use
        Reader entry = in.part(size);
        if (entry.take<std::uint32_t>() == 0)
            continue; // what functions have in common
        const std::uint64_t here = entry.address();
        const auto start =
            here + static_cast<std::uint64_t>(std::int64_t{entry.take<std::int32_t>()});
        if (entry.good())
            functions_.push_back({start, entry_at});
    }
    std::ranges::sort(functions_, {}, &Function::start);
}

std::uint64_t UnwindTable::bias(std::uint64_t start, std::uint64_t offset) const {
    constexpr std::uint64_t in_page = 4095;
    for (const Segment& each : segments_) {
        const std::uint64_t first = each.offset & ~in_page;
        if (offset >= first && offset - first < each.bytes + in_page)
            return start + (each.offset - offset) - each.address;
    }
    return 0;
}

std::optional<FrameRegisters> UnwindTable::step(const FrameRegisters& frame, std::uint64_t code,
                                                ReadStack stack) const {
    const auto reader_at = [&](std::uint64_t address) {
        const std::uint64_t at = address - address_;
        return at < bytes_.size() ? Reader(std::span(bytes_).subspan(at), address) : Reader();
    };
    const auto after = std::ranges::upper_bound(functions_, code, {}, &Function::start);
    if (after == functions_.begin())
        return std::nullopt;
    Reader in = reader_at(std::prev(after)->entry);
    Reader entry = in.part(in.take<std::uint32_t>());
    const std::uint64_t common_at = entry.address() - entry.take<std::uint32_t>();
    Reader of_common = reader_at(common_at);
    Reader common_entry = of_common.part(of_common.take<std::uint32_t>());
    if (common_entry.take<std::uint32_t>() != 0 || !common_entry.good())
        return std::nullopt;
    const auto common = read_common(common_entry);
    if (!common)
        return std::nullopt;
    const std::uint64_t here = entry.address();
    const std::uint64_t start =
        here + static_cast<std::uint64_t>(std::int64_t{entry.take<std::int32_t>()});
    const auto bytes = entry.take<std::uint32_t>();
    if (code - start >= bytes)
        return std::nullopt;
    if (common->has_augmentation)
        entry.skip(entry.take_unsigned());
    const auto row = RowProgram(*common, start, code).run(entry);
    return row && entry.good() ? caller(frame, *row, stack) : std::nullopt;
}

} // namespace moat::run
