#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""--help of every command: its examples run, and it lists the same exit statuses.

Usage: help_test.py MOAT, in the project's folder.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

import command

EXIT_STATUS = "Exit status:\n  0  "


def examples_of(text: str) -> list[str]:
    below = text.partition("Examples:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  ([^#\s].*)$", below, re.MULTILINE)


def main() -> int:
    moat = sys.argv[1]
    wrong: list[str] = []
    statuses = set()
    ran = 0
    with tempfile.TemporaryDirectory() as folder:
        sysfs = command.make_sysfs(pathlib.Path(folder))
        guard = " ".join(command.make_guard(pathlib.Path(folder) / "guard"))
        for path in command.all_paths(moat)[1:]:
            shown = command.run(moat, *path, "--help")
            statuses.add(EXIT_STATUS + shown.stdout.partition(EXIT_STATUS)[2])
            if shown.returncode != 0 or EXIT_STATUS not in shown.stdout:
                wrong.append(f"moat {' '.join(path)} --help says no exit status")
            examples = examples_of(shown.stdout)
            if len(path) == 1 and not 2 <= len(examples) <= 4:
                wrong.append(f"moat {path[0]} --help has {len(examples)} examples")
            for example in examples:
                line = re.sub(r"\bmoat\b", moat, example, count=1)
                if path[0] in ("devices", "bind", "unbind"):
                    line += f" --sysfs {sysfs}"
                if path[0] == "guard":
                    line += f" {guard}"
                if path[0] in ("serve", "watch"):  # until they are interrupted
                    line = "timeout --signal INT 2 " + line
                done = subprocess.run(["bash", "-c", line], capture_output=True, text=True,
                                      timeout=60, check=False)
                ran += 1
                said = done.stdout or (done.returncode == 3 and done.stderr)
                if done.returncode not in (0, 1, 3, 124) or not said:
                    wrong.append(f"{example}: exit status {done.returncode}: {done.stderr}")
    if len(statuses) != 1:
        wrong.append("the exit statuses differ between commands")
    if ran < 14:
        wrong.append(f"{ran} examples ran")
    version = command.run(moat, "--version")
    if not re.fullmatch(r"moat \d+\.\d+\.\d+\n", version.stdout) or version.returncode != 0:
        wrong.append(f"--version: {version}")
    print("\n".join(wrong) if wrong else f"{ran} examples")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
