#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs each `moat ...` line of the documentation and compares the output with the page.

Usage: commands_test.py ROOT MOAT. An indented block whose first line is `$ moat ...` is compared: `...` in a
line stands for anything, and alone on a line for any lines. Other indented `moat ...` lines, with or
without `$`, must end with 0, 1 (something was found) or 3 (a bound was reached). They run in ROOT.
"""
import pathlib
import re
import shlex
import subprocess
import sys

COMMAND = re.compile(r"^ {4,}(?:\$ )?(moat (?:audit|explore|explain|replay|stress) .*)$")


def run(root: pathlib.Path, moat: str, command: str) -> tuple[int, str]:
    done = subprocess.run([moat, *shlex.split(command)[1:]], cwd=root, capture_output=True, text=True,
                          timeout=100, check=False)
    return done.returncode, done.stdout


def pattern_of(expected: list[str]) -> re.Pattern:
    parts = []
    for line in expected:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*".join(map(re.escape, line.split("..."))) + r"\n")
    return re.compile("".join(parts) + ("" if expected[-1].strip() == "..." else r"\Z"))


def blocks(text: str):
    """Each command, with the lines that follow it in its block."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if found := COMMAND.match(line):
            output = []
            for below in lines[number + 1:]:
                if not below.startswith("    "):
                    break
                output.append(below[4:])
            yield number + 1, found[1], output if "$ moat" in line else []


def main() -> int:
    root, moat = pathlib.Path(sys.argv[1]), sys.argv[2]
    failed = ran = 0
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for number, command, output in blocks(path.read_text()):
            if re.search(r"<|\[--|FILE|\bN\b", command):
                continue  # says how, not what
            where = f"{path.relative_to(root)}:{number}: {command}"
            status, printed = run(root, moat, command)
            ran += 1
            if status not in (0, 1, 3):
                print(f"{where}: exit status {status}")
                failed += 1
            elif output and not pattern_of(output).match(printed):
                print(f"{where}: the documentation says\n" + "\n".join(output) +
                      f"\nand the command prints\n{printed}")
                failed += 1
    print(f"{ran} commands, {failed} failed")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
