// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A command whose buffer is too short: Identify writes 4096 bytes, and the kernel's driver maps the
// 512 that it is given, at the end of a page. QEMU's controller goes on where the second address of
// the command points, and there is none: at 0.
#include <array>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <sys/ioctl.h>

int main() {
    constexpr std::size_t page_bytes = 4096;
    constexpr std::uint32_t given_bytes = 512;
    constexpr std::uint8_t identify = 6;
    constexpr std::uint32_t identify_controller = 1;
    alignas(page_bytes) static std::array<unsigned char, page_bytes> page{};
    const int controller = ::open("/dev/nvme0", O_RDWR | O_CLOEXEC);
    nvme_passthru_cmd command{};
    command.opcode = identify;
    command.cdw10 = identify_controller;
    command.addr = reinterpret_cast<std::uintptr_t>(page.data() + page_bytes - given_bytes);
    command.data_len = given_bytes;
    const int status = ::ioctl(controller, NVME_IOCTL_ADMIN_CMD, &command);
    if (status < 0)
        std::perror("/dev/nvme0");
    return status < 0 ? 1 : 0; // else NVMe's own status
}
