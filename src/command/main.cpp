// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The command `moat`: runs a subcommand.
#include "command/manual.hpp"
#include "command/subcommands.hpp"
#include "command/terminal/help.hpp"
#include "command/terminal/output.hpp"
#include "command/terminal/terminal.hpp"

#include <CLI/CLI.hpp>
#include <iostream>

namespace {

using moat::tools::Exit;

Exit refuse(const CLI::App& app, const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) { // --help, --version
        app.exit(error);
        return Exit::success;
    }
    std::string command = "moat";
    const CLI::App* at = &app;
    for (; !at->get_subcommands().empty(); command += " " + at->get_name())
        at = at->get_subcommands().front();
    std::vector<std::string> unknown = at->remaining();
    std::erase(unknown, "--");
    std::cerr << command << ": ";
    if (unknown.empty())
        std::cerr << error.what();
    else
        std::cerr << "unknown option or command " << unknown.front();
    if (const std::string meant = moat::tools::suggestion(app); !meant.empty())
        std::cerr << "; did you mean " << meant << "?";
    std::cerr << "\nSee " << command << " --help.\n";
    return Exit::usage;
}

Exit run(int argc, char** argv) {
    CLI::App app("moat catches devices that DMA outside their buffers, and names the buffer.",
                 "moat");
    moat::tools::fit_help(app);
    app.set_version_flag("--version", "moat " MOAT_VERSION);
    Exit exit = Exit::success;
    moat::tools::add_audit(app, exit);
    moat::tools::add_devices(app, exit);
    moat::tools::add_explain(app, exit);
    moat::tools::add_explore(app, exit);
    moat::tools::add_guard(app, exit);
    moat::tools::add_replay(app, exit);
    moat::tools::add_run(app, exit);
    moat::tools::add_serve(app, exit);
    moat::tools::add_stress(app, exit);
    moat::tools::add_watch(app, exit);
    moat::tools::describe(
        app,
        {.paragraphs = {"Audits devices for accesses outside their buffers, follows and guards the "
                        "DMA mappings of kernel drivers, explains the IOMMU faults of a kernel "
                        "log, and explores the code that builds and walks page tables under every "
                        "interleaving of its threads."},
         .examples = {}});
    moat::tools::finish_help(app);
    app.footer("moat COMMAND --help shows the options and examples of a command.");
    moat::tools::add_manual(app);
    moat::tools::choose_colour("auto");
    try {
        app.parse(argc, argv);
        if (app.get_subcommands().empty())
            std::cout << app.help();
    } catch (const CLI::ParseError& error) {
        return refuse(app, error);
    } catch (const moat::tools::Stop& stop) {
        if (!stop.text.empty())
            std::cerr << stop.text << '\n';
        return stop.exit;
    }
    return exit;
}

} // namespace

int main(int argc, char** argv) {
    moat::tools::begin_output();
    Exit exit = Exit::bound;
    try {
        exit = run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << "moat: " << error.what() << '\n';
    }
    return static_cast<int>(moat::tools::finish_output(exit));
}
