// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "command/watch_table.hpp"

#include "fault/answer.hpp"

#include <algorithm>
#include <array>

namespace moat::tools {

namespace {

using watch::DeviceCounts;

[[nodiscard]] std::string short_bytes(std::uint64_t bytes) {
    constexpr std::array<const char*, 5> units = {" B", " KiB", " MiB", " GiB", " TiB"};
    std::size_t unit = 0;
    while (bytes >= 10'240 && unit + 1 != units.size()) {
        bytes /= 1024;
        ++unit;
    }
    return std::to_string(bytes) + units.at(unit);
}

[[nodiscard]] std::string padded(const std::string& text, std::size_t width) {
    return text + std::string(width - std::min(width, text.size()), ' ');
}

[[nodiscard]] std::string row(const std::array<std::string, 6>& cells) {
    constexpr std::array<std::size_t, 6> widths = {14, 14, 9, 10, 9, 0};
    std::string text;
    for (std::size_t i = 0; i != cells.size(); ++i)
        text += padded(cells.at(i), widths.at(i)) + (i + 1 == cells.size() ? "" : " ");
    return text;
}

} // namespace

std::uint64_t faults_of(const DeviceCounts& device) {
    std::uint64_t sum = 0;
    for (const auto& [kind, count] : device.faults)
        sum += count;
    return sum;
}

std::vector<std::string> watch_table(const std::vector<DeviceCounts>& now,
                                     const std::map<std::string, std::uint64_t>& maps_before,
                                     double seconds, std::size_t most_lines, std::size_t columns) {
    struct Line {
        const DeviceCounts* device;
        std::uint64_t rate;
    };

    std::vector<Line> lines;
    for (const DeviceCounts& device : now) {
        const auto before = maps_before.find(device.device);
        const std::uint64_t maps = device.maps - (before == maps_before.end() ? 0 : before->second);
        lines.push_back({&device, static_cast<std::uint64_t>(static_cast<double>(maps) / seconds)});
    }
    const auto busier = [](const Line& one, const Line& other) {
        const auto key = [](const Line& line) {
            return std::tuple(faults_of(*line.device), line.rate, line.device->maps);
        };
        return key(one) > key(other);
    };
    std::sort(lines.begin(), lines.end(), busier);
    std::vector<std::string> table = {
        row({"device", "driver", "mappings", "bytes", "maps/s", "faults"})};
    for (const auto& [device, rate] : lines) {
        if (table.size() >= most_lines)
            break;
        if (device->maps == 0 && device->faults.empty())
            continue;
        const bool is_followed = device->translated;
        table.push_back(row({device->device, device->driver.empty() ? "-" : device->driver,
                             is_followed ? fault::with_commas(device->live) : "no IOMMU",
                             is_followed ? short_bytes(device->live_bytes) : "-",
                             fault::with_commas(rate), fault::with_commas(faults_of(*device))}));
    }
    for (std::string& line : table)
        line.resize(std::min(line.size(), columns));
    return table;
}

} // namespace moat::tools
