// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/launch.hpp"

#include "platform/file_descriptor.hpp"
#include "run/mount_namespace.hpp"
#include "run/sysfs_tree.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/wait.h>
#include <unistd.h>

namespace moat::run {

namespace fs = std::filesystem;

namespace {

void preload(const std::string& library, const Options& options) {
    const char* const others = std::getenv("LD_PRELOAD");
    const std::string all = library + (others == nullptr ? "" : ":" + std::string(others));
    ::setenv("LD_PRELOAD", all.c_str(), 1);
    ::setenv("MOAT_RUN", to_text(options).c_str(), 1);
}

} // namespace

class Launch::State {
  public:
    explicit State(Options chosen) : options(std::move(chosen)) {}

    ~State() {
        std::error_code ignored;
        fs::remove_all(options.folder, ignored);
    }

    State(const State&) = delete;
    State& operator=(const State&) = delete;

    Options options;
};

Launch::Launch(std::unique_ptr<State> state) : state_(std::move(state)) {}

Launch::Launch(Launch&&) noexcept = default;
Launch::~Launch() = default;

std::expected<Launch, std::string> Launch::prepare(Options options, Paths paths) {
    const auto failed = [](const std::string& step) {
        return std::unexpected(step + ": " + std::strerror(errno));
    };
    std::error_code ignored;
    std::string folder = (fs::temp_directory_path(ignored) / "moat-run-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr)
        return failed("cannot make a folder " + folder);
    options.folder = folder;
    const std::string path = folder + '/' + std::string(tally_file);
    const platform::FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (file.get() < 0)
        return failed(path);
    Launch launch(std::make_unique<State>(std::move(options)));
    Options& kept = launch.state_->options;
    MOAT_TRY(write_sysfs_tree(kept));
    kept.redirect =
        paths == Paths::redirected || (paths == Paths::automatic && !can_mount(kept.folder));
    return launch;
}

std::expected<ProgramEnd, std::string> Launch::run(const std::vector<std::string>& program,
                                                   const std::string& library) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0)
        return std::unexpected(std::string("pipe: ") + std::strerror(errno));
    const platform::FileDescriptor read_end(ends[0]);
    platform::FileDescriptor write_end(ends[1]);
    const pid_t child = ::fork();
    if (child < 0)
        return std::unexpected(std::string("fork: ") + std::strerror(errno));
    if (child == 0) {
        preload(library, state_->options);
        std::string why = enter_view(state_->options);
        if (why.empty())
            why = execute(program);
        (void)!::write(write_end.get(), why.data(), why.size());
        ::_exit(127);
    }
    const SignalsForProgram signals(child);
    write_end.reset();
    const std::string why = read_all(read_end.get()); // exec closes it
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!why.empty())
        return std::unexpected(why);
    return program_end(status);
}

const Options& Launch::options() const {
    return state_->options;
}

Tally Launch::tally() const {
    return total_tally(state_->options.folder);
}

std::string Launch::findings() const {
    std::ifstream in(state_->options.folder + '/' + std::string(findings_file));
    return {std::istreambuf_iterator<char>(in), {}};
}

} // namespace moat::run
