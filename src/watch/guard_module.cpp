// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "watch/guard_module.hpp"

#include "core/parse.hpp"
#include "platform/file_descriptor.hpp"
#include "watch/trace/trace_files.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::watch {

namespace fs = std::filesystem;
using platform::FileDescriptor;

namespace {

constexpr const char* module_folder = "sys/module/moat_guard";
constexpr const char* state_file = "sys/kernel/debug/moat_guard/state";

std::string with_errno(const std::string& what, int number) {
    std::string text = what + ": " + std::strerror(number);
    if (number == EACCES || number == EPERM)
        text += "; root is needed";
    return text;
}

std::string load_refusal(const fs::path& file, int number) {
    std::string text = with_errno("cannot load " + file.string(), number);
    if (number == EKEYREJECTED || number == ENOKEY)
        text +=
            "; the kernel requires signed modules: enrol the key that DKMS signs with (mokutil)";
    else if (number == EOPNOTSUPP || number == EBUSY)
        text += "; a check failed: dmesg names it after \"moat_guard:\"";
    else if (number == ENOEXEC || number == ENOENT)
        text += "; the module was built for another kernel";
    return text;
}

std::expected<void, std::string> load_file(const fs::path& file) {
    const FileDescriptor module(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
    if (module.get() < 0)
        return std::unexpected(with_errno("cannot open " + file.string(), errno));
    if (::syscall(SYS_finit_module, module.get(), "", 0) != 0 && errno != EEXIST)
        return std::unexpected(load_refusal(file, errno));
    return {};
}

std::expected<void, std::string> run_modprobe() {
    std::string program = "modprobe";
    std::string name = "moat_guard";
    std::array<char*, 3> words = {program.data(), name.data(), nullptr};
    pid_t process = 0;
    int status = -1;
    if (::posix_spawnp(&process, program.c_str(), nullptr, nullptr, words.data(), environ) == 0)
        while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
        }
    if (status != 0)
        return std::unexpected("modprobe cannot load moat_guard: install moat-guard-dkms, or name "
                               "the file with --module; dmesg names a check that failed");
    return {};
}

} // namespace

bool GuardModule::is_loaded() const {
    std::error_code ignored;
    return fs::exists(root_ / module_folder / "parameters", ignored);
}

std::expected<void, std::string> GuardModule::load(const fs::path& file) const {
    return file.empty() ? run_modprobe() : load_file(file);
}

std::expected<GuardSettings, std::string> GuardModule::settings() const {
    const fs::path folder = root_ / module_folder / "parameters";
    const auto size = number_in(read_line(folder / "size"));
    const auto budget = number_in(read_line(folder / "budget"));
    if (!size || !budget)
        return std::unexpected("cannot read size and budget in " + folder.string());
    return GuardSettings{.size_kib = *size, .budget = *budget};
}

std::expected<std::vector<GuardDevice>, std::string> GuardModule::state() const {
    const auto text = read_file(root_ / state_file);
    if (!text)
        return std::unexpected("cannot read " + (root_ / state_file).string() +
                               ": root is needed, and debugfs: mount -t debugfs debugfs "
                               "/sys/kernel/debug");
    return parse_guard_state(*text);
}

std::expected<void, std::string> GuardModule::choose(std::span<const std::string> addresses) const {
    std::string list;
    for (const std::string& each : addresses)
        list += (list.empty() ? "" : ",") + each;
    return set("devices", list);
}

std::expected<void, std::string> GuardModule::set_size(std::uint64_t kib) const {
    return set("size", std::to_string(kib));
}

std::expected<void, std::string> GuardModule::set(const char* parameter,
                                                  const std::string& value) const {
    const fs::path file = root_ / module_folder / "parameters" / parameter;
    const FileDescriptor out(::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
    // The line end makes an empty list a write.
    const std::string line = value + '\n';
    if (out.get() < 0 || ::write(out.get(), line.data(), line.size()) < 0)
        return std::unexpected(
            with_errno("cannot write \"" + value + "\" to " + file.string(), errno));
    return {};
}

void add_guards(PciDevices& devices, const fs::path& root) {
    const GuardModule module(root);
    const auto state = module.is_loaded() ? module.state() : std::vector<GuardDevice>();
    for (const GuardDevice& each : state ? *state : std::vector<GuardDevice>())
        if (const auto found = devices.find(each.address); found != devices.end() && each.domain)
            found->second.guard_bytes = each.domain->guard_bytes;
}

} // namespace moat::watch
