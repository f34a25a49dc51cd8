#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""On a narrow terminal, help, reports, errors and progress keep words whole.

Every line fits or is one word, and the words match those written to a pipe.

Usage: width_test.py MOAT, in the project's folder.
"""
import re
import subprocess
import sys

import command

RECORDING = "tests/watch/data/overrun.rec"

ESCAPES = re.compile(r"\x1b\[[0-9;]*[mK]")


def on_terminal(columns: int, words: list[str], stream: str) -> str:
    text = command.on_terminal(words, stream, columns=columns)
    return ESCAPES.sub("", text).replace("\r\n", "\n")


def words_of(text: str) -> list[str]:
    """The words without line continuations; numbers become 0, since times differ between runs."""
    return [re.sub(r"\d+", "0", word) for word in text.replace(" \\\n", " \n").split()]


def long_lines(text: str, columns: int) -> list[str]:
    return [line for line in text.splitlines()
            if len(line) > columns and len(line.removesuffix(" \\").split()) > 1]


def fits(moat: str, columns: int, words: list[str], stream: str = "stdout") -> list[str]:
    piped = getattr(command.run(moat, *words), stream)
    shown = on_terminal(columns, [moat, *words], stream)
    wrong = [f"{columns} columns: moat {' '.join(words)}: {line!r}"
             for line in long_lines(shown, columns)]
    if not shown or words_of(shown) != words_of(piped):
        wrong.append(f"{columns} columns: moat {' '.join(words)}: other words:\n{shown}\n{piped}")
    return wrong


def commands_can_be_copied(moat: str) -> list[str]:
    """A finding's command, as a narrow terminal shows it, is one command for a shell."""
    words = ["audit", "--device", "nvme", "--inject", "overrun", "--case", "0"]
    shown = on_terminal(40, [moat, *words], "stdout")
    found = re.search(r"^ +moat audit(?:.* \\\n)+.*$", shown, re.MULTILINE)
    if not found:
        return [f"no command over several lines: {shown}"]
    done = subprocess.run(["bash", "-c", found[0].replace("moat", moat, 1)], capture_output=True,
                          text=True, timeout=60, check=False)
    return [] if done.returncode == 1 and "wrote-outside" in done.stdout else \
        [f"{found[0]}: {done.returncode} {done.stderr}"]


def progress_fits(moat: str) -> list[str]:
    wrong = []
    for columns in (20, 40, 80):
        said = on_terminal(columns, [moat, "audit", "--device", "edu", "--time", "1.4"], "stderr")
        lines = [line for line in said.split("\r") if line]
        if not lines or any(len(line) >= columns for line in lines):
            wrong.append(f"progress in {columns} columns: {lines}")
        wrong += [f"progress in {columns} columns ends inside a word: {line!r}" for line in lines
                  if not re.search(r"(edu|%|operations|/s|left|findings)$", line)]
    return wrong


def main() -> int:
    moat = sys.argv[1]
    wrong = []
    for path in command.all_paths(moat):
        for columns in (40, 60):
            wrong += fits(moat, columns, [*path, "--help"])
    overrun = ["audit", "--device", "nvme", "--inject", "overrun", "--case", "0"]
    for words in (["audit", "--list"], overrun, ["explore", "pud-slot", "--variant", "old"],
                  ["explore", "pud-slot"], ["explain", "tests/fault/data/intel-6.12.117-type1.txt"],
                  ["devices"], ["replay", RECORDING], ["replay", RECORDING, "--guard", "4k"],
                  ["stress", "bar-walk", "--bar", "1G", "--time", "0.1", "--readers", "0"]):
        for columns in (40, 80):
            wrong += fits(moat, columns, words)
    for words in (["audti"], ["audit", "--device", "floppy"], ["audit", "--seed", "nan"],
                  ["explore", "pud-slot", "--walkers", "0", "--faulters", "0"], ["bind", "x"]):
        wrong += fits(moat, 40, words, "stderr")
    json = on_terminal(40, [moat, *overrun, "--json"], "stdout")
    if any(not line.startswith("{") for line in json.splitlines()):
        wrong.append("a line of JSON is wrapped")
    wrong += commands_can_be_copied(moat) + progress_fits(moat)
    if not long_lines("x" * 39 + " y", 40):
        wrong.append("a line that is too long is not noticed")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
