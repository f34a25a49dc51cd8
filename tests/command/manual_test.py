#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The manual pages: one for each command, with the options that --help has, and clean by mandoc.

Usage: manual_test.py MOAT, in the project's folder.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import command

NOT_INSTALLED = "referenced manual not found" # looked for here instead


def options_in_help(text: str) -> set[str]:
    """Of the left column alone."""
    below = text.partition("Options:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"(?:^  |,)(--?[a-z-]+)", below, re.MULTILINE))


def options_in_page(text: str) -> set[str]:
    return {"-" + name for line in re.findall(r"^\.It (Fl .*)$", text, re.MULTILINE)
            for name in re.findall(r"Fl (\S+)", line)}


def differences(help_options: set[str], page: str) -> list[str]:
    page_options = options_in_page(page)
    return ([f"the page lacks {each}" for each in sorted(help_options - page_options)] +
            [f"the page has {each}, which is no option" for each in sorted(page_options - help_options)])


def main() -> int:
    moat = sys.argv[1]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        command.run(moat, "manual", folder)
        pages = {path.name: path.read_text() for path in pathlib.Path(folder).iterdir()}
        names = [""] + command.commands_of(moat)
        expected = {f"moat-{name}.1" if name else "moat.1" for name in names}
        if pages.keys() != expected:
            wrong.append(f"pages {sorted(pages)}, expected {sorted(expected)}")
        for name in names:
            page = f"moat-{name}.1" if name else "moat.1"
            paths = command.all_paths(moat, name) if name else [()]
            options = set.union(*(options_in_help(command.run(moat, *path, "--help").stdout)
                                  for path in paths))
            wrong += [f"{page}: {each}" for each in differences(options, pages[page])]
            for other in re.findall(r"^\.(?:It )?Xr (\S+) 1", pages[page], re.MULTILINE):
                if f"{other}.1" not in pages:
                    wrong.append(f"{page} refers to {other}, and there is no such page")
        audit = options_in_help(command.run(moat, "audit", "--help").stdout)
        if len(audit) < 10 or not differences(audit | {"--nope"}, pages["moat-audit.1"]) or \
                not differences(audit - {"--seed"}, pages["moat-audit.1"]):
            wrong.append("a difference of options is not noticed")
        if mandoc := shutil.which("mandoc"):
            done = subprocess.run([mandoc, "-T", "lint", "-W", "style",
                                   *(f"{folder}/{page}" for page in sorted(pages))],
                                  capture_output=True, text=True, check=False)
            said = (done.stdout + done.stderr).splitlines()
            wrong += [line for line in said if NOT_INSTALLED not in line]
    print("\n".join(wrong) if wrong else f"{len(pages)} pages")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
