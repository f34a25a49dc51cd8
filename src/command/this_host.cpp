// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sources: Linux, Documentation/ABI/testing/sysfs-bus-pci and sysfs-kernel-iommu_groups;
// syslog(2).
#include "command/this_host.hpp"

#include "fault/log_group.hpp"
#include "platform/file_descriptor.hpp"

#include <charconv>
#include <fstream>
#include <sys/klog.h>

namespace moat::tools {

namespace {

namespace fs = std::filesystem;

/// Actions of klogctl(), which have no names in headers.
constexpr int read_all = 3;
constexpr int size_of_buffer = 10;

/// The hexadecimal number in a file of one line; 0 if there is none.
[[nodiscard]] std::uint32_t hex_in(const fs::path& file) {
    std::ifstream in(file);
    std::string line;
    std::getline(in, line);
    std::uint32_t value = 0;
    if (line.starts_with("0x"))
        std::from_chars(line.data() + 2, line.data() + line.size(), value, 16);
    return value;
}

void add_functions(fault::LogContext& context, const fs::path& devices) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(devices, error)) {
        const auto function = fault::parse_pci_function(entry.path().filename().string());
        fault::DeviceFacts* const facts = function ? context.add_device(*function) : nullptr;
        if (facts == nullptr)
            continue;
        facts->vendor = static_cast<std::uint16_t>(hex_in(entry.path() / "vendor"));
        facts->product = static_cast<std::uint16_t>(hex_in(entry.path() / "device"));
        facts->pci_class = static_cast<std::uint16_t>(hex_in(entry.path() / "class") >> 8);
        const fs::path driver = fs::read_symlink(entry.path() / "driver", error);
        if (!error)
            facts->driver = driver.filename().string();
    }
}

/// Lines such as "0x00000000fee00000 0x00000000feefffff msi".
void add_reserved(fault::LogContext& context, const fs::path& groups) {
    std::error_code error;
    for (const fs::directory_entry& group : fs::directory_iterator(groups, error)) {
        std::ifstream in(group.path() / "reserved_regions");
        std::uint64_t first = 0;
        std::uint64_t last = 0;
        std::string kind;
        while (in >> std::hex >> first >> last >> kind)
            context.add({.first = first, .last = last, .what = "a reserved range (" + kind + ')'});
    }
}

} // namespace

Result<std::string> kernel_log() {
    const int size = ::klogctl(size_of_buffer, nullptr, 0);
    std::string text(static_cast<std::size_t>(size < 0 ? 0 : size), '\0');
    const int got = size < 0 ? size : ::klogctl(read_all, text.data(), size);
    if (got < 0)
        return platform::fail_errno("cannot read the kernel's log: run as root, or set "
                                    "kernel.dmesg_restrict=0",
                                    ErrorCode::refused);
    text.resize(static_cast<std::size_t>(got));
    return text;
}

void add_this_host(fault::LogContext& context, const fs::path& root) {
    add_functions(context, root / "sys/bus/pci/devices");
    add_reserved(context, root / "sys/kernel/iommu_groups");
    std::ifstream memory(root / "proc/iomem");
    for (std::string line; std::getline(memory, line);)
        context.line(line);
}

} // namespace moat::tools
