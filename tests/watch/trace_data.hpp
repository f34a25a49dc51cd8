// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Captures of real kernels' tracing (data/*.trace), and a page writer for what no capture has.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace moat::watch {

using PageBytes = std::vector<std::byte>;

struct TraceCapture {
    std::map<std::string, std::string> files = {};          ///< path below tracefs -> text
    std::vector<std::pair<unsigned, PageBytes>> pages = {}; ///< with their CPUs
};

inline PageBytes bytes_from_hex(const std::string& text) {
    PageBytes bytes;
    for (std::size_t at = 0; at + 1 < text.size(); at += 2)
        bytes.push_back(static_cast<std::byte>(std::stoul(text.substr(at, 2), nullptr, 16)));
    return bytes;
}

inline TraceCapture read_capture(const std::string& file) {
    TraceCapture capture;
    std::ifstream in(file);
    std::string line;
    while (std::getline(in, line)) {
        const bool is_page = line.starts_with("PAGE ");
        if (!is_page && !line.starts_with("FILE "))
            continue;
        const std::string name = line.substr(5);
        std::string text;
        while (std::getline(in, line) && line != "END")
            text += is_page ? line : line + '\n';
        if (!is_page) {
            capture.files[name] = text;
            continue;
        }
        capture.pages.emplace_back(static_cast<unsigned>(std::stoul(name)), bytes_from_hex(text));
        capture.pages.back().second.resize(4096);
    }
    return capture;
}

/// Writes records as the kernel does.
class PageWriter {
  public:
    explicit PageWriter(std::uint64_t time_ns) {
        append(time_ns);
        append(std::uint64_t{0});
    }

    template <class Number>
    void append(Number number) {
        bytes_.resize(bytes_.size() + sizeof number);
        std::memcpy(bytes_.data() + bytes_.size() - sizeof number, &number, sizeof number);
    }

    void record(std::uint32_t delta, const PageBytes& data) {
        append(delta << 5 | static_cast<std::uint32_t>((data.size() + 3) / 4));
        bytes_.insert(bytes_.end(), data.begin(), data.end());
        bytes_.resize((bytes_.size() + 3) / 4 * 4);
    }

    void long_record(std::uint32_t delta, const PageBytes& data) {
        append(delta << 5);
        append(static_cast<std::uint32_t>(data.size() + 4));
        bytes_.insert(bytes_.end(), data.begin(), data.end());
        bytes_.resize((bytes_.size() + 3) / 4 * 4);
    }

    /// The page; `missed`: as if so many records had been overwritten before it (0: uncounted).
    [[nodiscard]] PageBytes page() const { return finished(0); }

    [[nodiscard]] PageBytes page_after_loss(std::uint64_t missed) const {
        PageBytes page = finished(0x80000000 | (missed != 0 ? 0x40000000 : 0));
        std::memcpy(page.data() + bytes_.size(), &missed, sizeof missed);
        return page;
    }

  private:
    [[nodiscard]] PageBytes finished(std::uint64_t bits) const {
        PageBytes page = bytes_;
        page.resize(4096);
        const std::uint64_t commit = (bytes_.size() - 16) | bits;
        std::memcpy(page.data() + 8, &commit, sizeof commit);
        return page;
    }

    PageBytes bytes_;
};

} // namespace moat::watch
