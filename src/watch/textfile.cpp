// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "textfile.hpp"

#include "platform/file_descriptor.hpp"

#include <cstdio>
#include <fcntl.h>
#include <string_view>

namespace moat::watch {

namespace {

/// Of a label: a backslash, a quote and a line feed need a backslash.
[[nodiscard]] std::string escaped(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c == '\\' || c == '"')
            result += '\\';
        result += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    return result;
}

[[nodiscard]] std::string labels(const DeviceCounts& device, std::string_view more = {}) {
    return "{device=\"" + escaped(device.device) + "\",driver=\"" + escaped(device.driver) + '"' +
           std::string(more) + "} ";
}

class Metrics {
  public:
    void begin(std::string_view name, std::string_view type, std::string_view help) {
        name_ = "moat_" + std::string(name);
        text_ += "# HELP " + name_ + ' ' + std::string(help) + "\n# TYPE " + name_ + ' ' +
                 std::string(type) + '\n';
    }

    void value(const std::string& labels, std::uint64_t value) {
        text_ += name_ + labels + std::to_string(value) + '\n';
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    std::string name_;
    std::string text_;
};

struct DeviceMetric {
    std::string_view name;
    std::string_view type;
    std::string_view help;
    std::uint64_t DeviceCounts::* count;
};

constexpr DeviceMetric device_metrics[] = {
    {"dma_live_mappings", "gauge", "Live DMA mappings.", &DeviceCounts::live},
    {"dma_live_bytes", "gauge", "Bytes of live DMA mappings.", &DeviceCounts::live_bytes},
    {"dma_maps_total", "counter", "DMA mappings made.", &DeviceCounts::maps},
    {"dma_unmaps_total", "counter", "DMA mappings ended.", &DeviceCounts::unmaps},
};

} // namespace

std::string textfile(const Follower& follower) {
    const std::vector<DeviceCounts> devices = follower.devices();
    Metrics metrics;
    for (const DeviceMetric& metric : device_metrics) {
        metrics.begin(metric.name, metric.type, metric.help);
        for (const DeviceCounts& device : devices)
            metrics.value(labels(device), device.*metric.count);
    }
    metrics.begin("dma_faults_total", "counter", "Accesses that the IOMMU refused.");
    for (const DeviceCounts& device : devices)
        for (const auto& [kind, count] : device.faults)
            metrics.value(labels(device, ",class=\"" + std::string(name(kind)) + '"'), count);
    metrics.begin("dma_faults_unlogged_total", "counter", "Faults that the kernel did not log.");
    metrics.value(" ", follower.faults_without_line());
    metrics.begin("trace_events_lost_total", "counter", "Trace events that the kernel dropped.");
    metrics.value(" ", follower.lost());
    return metrics.take();
}

Result<void> replace_file(const std::filesystem::path& file, const std::string& text) {
    // node_exporter reads only files that end in ".prom".
    const std::string beside = file.string() + ".new";
    constexpr mode_t readable_by_all = 0644;
    const platform::FileDescriptor out(
        ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, readable_by_all));
    if (out.get() < 0)
        return platform::fail_errno("cannot create the file beside it");
    for (std::size_t done = 0; done != text.size();) {
        const ssize_t written = ::write(out.get(), text.data() + done, text.size() - done);
        if (written <= 0)
            return platform::fail_errno("cannot write the file beside it");
        done += static_cast<std::size_t>(written);
    }
    if (std::rename(beside.c_str(), file.c_str()) != 0)
        return platform::fail_errno("cannot rename the file beside it");
    return {};
}

} // namespace moat::watch
