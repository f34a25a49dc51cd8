#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Output on a terminal: colours on request, progress that is erased at the end, exit statuses, and
errors that suggest the intended name.

Usage: terminal_test.py MOAT, in the project's folder.
"""
import pathlib
import re
import sys
import tempfile

import command

ESCAPE = "\x1b["


def colours(moat: str) -> list[str]:
    overrun = [moat, "audit", "--device", "nvme", "--inject", "overrun", "--case", "0"]
    race = [moat, "explore", "pud-slot", "--variant", "old"]
    log = [moat, "explain", "tests/fault/data/intel-6.12.117-type1.txt"]
    stress = [moat, "stress", "bar-walk", "--bar", "1G", "--time", "0.1"]
    wrong = []

    def expect(what: str, text: str, coloured: bool) -> None:
        if (ESCAPE in text) != coloured or not text:
            wrong.append(f"{what}: {'no ' if coloured else ''}colours: {text[:200]!r}")

    for words in (overrun, race, log, stress):
        expect(f"{words[1]} on a terminal", command.on_terminal(words, "stdout"), True)
        expect(f"{words[1]} into a pipe", command.run(*words).stdout, False)
        always = command.run(*words, "--color", "always").stdout
        expect(f"{words[1]} --color always", always, True)
        if words[1] != "stress" and re.sub(r"\x1b\[[0-9;]*m", "", always).splitlines()[1:] != \
                command.run(*words).stdout.splitlines()[1:]:
            wrong.append(f"{words[1]}: colours change the text") # its first line may contain a time
    expect("--color never", command.on_terminal([*overrun, "--color", "never"], "stdout"), False)
    expect("NO_COLOR", command.on_terminal(overrun, "stdout", NO_COLOR="1"), False)
    expect("an empty NO_COLOR", command.on_terminal(overrun, "stdout", NO_COLOR=""), True)
    expect("a dumb terminal", command.on_terminal(overrun, "stdout", TERM="dumb"), False)
    always = [*overrun, "--color", "always"]
    expect("an option before NO_COLOR", command.on_terminal(always, "stdout", NO_COLOR="1"), True)
    expect("JSON", command.run(*overrun, "--json").stdout, False)
    return wrong


def progress(moat: str) -> list[str]:
    wrong = []
    for words, unit in ((["audit", "--device", "edu", "--time", "1.6"], "operations"),
                        (["explore", "pud-slot", "--walkers", "2", "--faulters", "3", "--zappers", "2",
                          "--attempts", "6", "--seconds", "1.6"], "executions"),
                        (["stress", "bar-walk", "--bar", "1G", "--time", "1.6"], "rounds")):
        said = command.on_terminal([moat, *words], "stderr")
        if not re.search(rf"\[=+ *\] \d+ %, \d+ {unit}, \d+/s, 0:0\d left", said):
            wrong.append(f"{words[0]}: no progress: {said!r}")
        if "\n" in said or not said.endswith("\r\x1b[K"):
            wrong.append(f"{words[0]}: its line of progress stays: {said!r}")
        if said.count("\r\x1b[K") < 2:
            wrong.append(f"{words[0]}: its line is not drawn over: {said!r}")
    if said := command.on_terminal([moat, "audit", "--device", "edu", "--time", "0.3"], "stderr"):
        wrong.append(f"progress within a second: {said!r}")
    done = command.run(moat, "audit", "--device", "edu", "--time", "1.4")
    if done.stderr:
        wrong.append(f"progress where there is no terminal: {done.stderr!r}")
    return wrong


def statuses(moat: str) -> list[str]:
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        sysfs = ["--sysfs", str(command.make_sysfs(pathlib.Path(folder) / "sys"))]
        nothing = str(pathlib.Path(folder) / "nothing")
        replay = pathlib.Path(folder) / "replay"
        empty = pathlib.Path(folder) / "empty"
        empty.write_text("nothing happened\n")
        command.run(moat, "explore", "pud-slot", "--variant", "old", "--write-replay", str(replay))
        for status, words in (
                (0, ["devices", *sysfs]), (2, ["devices", "--nope"]),
                (3, ["devices", "--sysfs", nothing]),
                (0, ["bind", "00:04.0", *sysfs]), (2, ["bind"]), (2, ["bind", "x", *sysfs]),
                (3, ["bind", "00:05.0", *sysfs]),
                (0, ["unbind", "00:04.0", *sysfs]), (2, ["unbind", "x", *sysfs]),
                (3, ["unbind", "00:05.0", *sysfs]),
                (0, ["explain", str(empty)]),
                (1, ["explain", "tests/fault/data/intel-6.12.117-type1.txt"]),
                (2, ["explain", nothing]),
                (0, ["audit", "--device", "edu", "--operations", "5"]),
                (1, ["audit", "--device", "nvme", "--inject", "overrun", "--case", "0"]),
                (2, ["audit", "--device", "floppy"]),
                (3, ["audit", "--device", "edu", "--operations", "1", "--trace", folder]),
                (0, ["explore", "pud-slot"]), (1, ["explore", "pud-slot", "--variant", "old"]),
                (2, ["explore", "pud-slot", "--shard", "9"]),
                (3, ["explore", "pud-slot", "--faulters", "2", "--most-executions", "5"]),
                (1, ["explore", "--replay", str(replay)]),
                (2, ["explore", "--merge", str(replay)]),
                (1, ["replay", "tests/watch/data/overrun.rec"]),
                (2, ["replay"]), (3, ["replay", nothing]),
                (0, ["stress", "bar-walk", "--bar", "1G", "--time", "0.1"]),
                (2, ["stress", "bar-walk", "--bar", "1000"]), (2, ["stress"]), (0, [])):
            done = command.run(moat, *words)
            if done.returncode != status:
                wrong.append(f"moat {' '.join(words)}: exit status {done.returncode}, not {status}")
            if status >= 2 and not done.stderr.strip() and "--most-executions" not in words:
                wrong.append(f"moat {' '.join(words)}: nothing is said about what is wrong")
    if command.run(moat).stdout != command.run(moat, "--help").stdout:
        wrong.append("moat without arguments does not print its help")
    return wrong


def errors(moat: str) -> list[str]:
    wrong = []
    for words, said in ((["audti"], "did you mean audit?"), (["xplore"], "did you mean explore?"),
                        (["audit", "--machien", "soft"], "did you mean --machine?"),
                        (["explore", "pud-slit"], "did you mean pud-slot?"),
                        (["audit", "--machine", "attic"], "attic not in {soft,qemu,vfio}"),
                        (["audit", "--device", "floppy"], "floppy; see moat audit --list"),
                        (["audit", "--inject", "x"], "overrun"), (["bind", "x"], "0000:00:04.0"),
                        (["quux"], "moat --help"),
                        (["explore", "pud-slot", "--json", "--trace", "t"], "t not written"),
                        (["explore", "pud-slot", "--variant", "old", "--write-replay", "/no/file"],
                         "/no/file: ")):
        done = command.run(moat, *words)
        if said not in done.stderr or (done.stdout and done.returncode == 2):
            wrong.append(f"moat {' '.join(words)}: {done.stderr!r} does not say {said!r}")
    if "did you mean" in command.run(moat, "quux").stderr:
        wrong.append("quux is like nothing, and something is suggested")
    return wrong


def main() -> int:
    moat = sys.argv[1]
    wrong = colours(moat) + progress(moat) + statuses(moat) + errors(moat)
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
