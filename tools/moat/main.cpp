// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The command `moat`: hands over to a subcommand. No work of its own.
#include "subcommands.hpp"

#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
    using moat::tools::Exit;
    CLI::App app("moat: the page tables between a device and memory", "moat");
    app.require_subcommand(1);
    Exit exit = Exit::success;
    moat::tools::add_audit(app, exit);
    moat::tools::add_devices(app, exit);
    moat::tools::add_explain(app, exit);
    moat::tools::add_explore(app, exit);
    moat::tools::add_stress(app, exit);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? static_cast<int>(Exit::success)
                                    : static_cast<int>(Exit::usage);
    }
    return static_cast<int>(exit);
}
