#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Every command that cannot write its output ends with exit status 3 and one line.

Usage: output_test.py MOAT, in the project's folder.
"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import command

RECORDING = "tests/watch/data/overrun.rec"
LOG = "tests/fault/data/intel-6.12.117-type1.txt"


def run_into(stdout, words: list[str], **more) -> subprocess.CompletedProcess:
    """Runs words with standard output into the file of that name; None closes it."""
    def close() -> None:
        os.close(1)
    if stdout is None:
        return subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
                              preexec_fn=close, **more)
    with open(stdout, "wb") as file:
        return subprocess.run(words, stdout=file, stderr=subprocess.PIPE, text=True, timeout=60,
                              check=False, **more)


def printing_commands(moat: str, folder: pathlib.Path) -> list[list[str]]:
    """Each command's --help and its work, as text and, if it has --json, as JSON."""
    sysfs = ["--sysfs", str(command.make_sysfs(folder / "sys"))]
    guard = command.make_guard(folder / "guard")
    replay = folder / "replay"
    command.run(moat, "explore", "pud-slot", "--variant", "old", "--write-replay", str(replay))
    result = folder / "result"
    result.write_text(command.run(moat, "explore", "pud-slot", "--json").stdout)
    does = {("audit",): [["--list"], ["--device", "edu", "--operations", "5"],
                         ["--device", "nvme", "--inject", "overrun", "--case", "0"]],
            ("devices",): [sysfs], ("bind",): [["00:04.0", *sysfs]],
            ("unbind",): [["00:04.0", *sysfs]], ("explain",): [[LOG]],
            ("explore",): [["--replay", str(replay)], ["--merge", str(result)]],
            ("guard",): [], ("guard", "status"): [guard], ("guard", "on"): [guard],
            ("guard", "off"): [guard],
            ("replay",): [[RECORDING], [RECORDING, "--guard", "4k"]],
            ("watch",): [],  # needs tracefs; tests/vm runs it
            ("run",): [], ("serve",): [],  # tests/run and tests/serve run them
            ("stress",): [], ("stress", "bar-walk"): [["--bar", "1G", "--time", "0.1"]]}
    commands = [["--help"], ["--version"], ["completion", "bash"]]
    for path in command.all_paths(moat)[1:]:
        commands.append([*path, "--help"])
        for words in does[path] if path in does else [[]]: # a new command: run it without arguments
            commands.append([*path, *words])
            if "--json" in command.run(moat, *path, "--help").stdout:
                commands.append([*path, *words, "--json"])
    return commands


def unwritable_output(moat: str, folder: pathlib.Path) -> list[str]:
    wrong = []
    commands = printing_commands(moat, folder)
    for words in commands:
        good = command.run(moat, *words)
        if not good.stdout or good.returncode not in (0, 1):
            wrong.append(f"moat {' '.join(words)}: prints nothing: {good.returncode} {good.stderr}")
        for stdout, reason in (("/dev/full", "No space left on device"), (None, "it is closed")):
            done = run_into(stdout, [moat, *words])
            lines = done.stderr.splitlines()
            if done.returncode != 3 or len(lines) != 1 or \
                    not lines[0].startswith("moat: cannot write standard output"):
                wrong.append(f"moat {' '.join(words)} into {stdout}: {done.returncode} {done.stderr!r}")
            elif reason not in lines[0] and len(good.stdout) < 4096:
                wrong.append(f"moat {' '.join(words)} into {stdout}: no reason in {lines[0]!r}")
    if len(commands) < 50:
        wrong.append(f"only {len(commands)} commands")
    # A usage error prints nothing on standard output, so it keeps its status.
    if (done := run_into("/dev/full", [moat, "audti"])).returncode != 2:
        wrong.append(f"a usage error beside /dev/full: {done.returncode}")
    return wrong


def ends_early(moat: str, folder: pathlib.Path) -> list[str]:
    """A run ends at once if its output or a file cannot be written."""
    wrong = []
    large = ["explore", "pud-slot", "--walkers", "2", "--faulters", "3", "--zappers", "2", "--attempts",
             "6", "--seconds", "50"]
    runs = [["audit", "--device", "edu", "--time", "50"], large,
            ["stress", "bar-walk", "--bar", "1G", "--time", "50"]]
    begin = time.monotonic()
    for words in runs:
        if (done := run_into(None, [moat, *words])).returncode != 3:
            wrong.append(f"moat {' '.join(words)} >&-: {done.returncode}")
    if time.monotonic() - begin > 20:
        wrong.append("a run with closed output goes on")
    for words in runs[:2]:
        path = words[:2] if words[0] == "explore" else words[:1]
        options = re.findall(r"^  (--[a-z-]+) FILE", command.run(moat, *path, "--help").stdout,
                             re.MULTILINE)
        if not {"--html", "--trace"} <= set(options):
            wrong.append(f"moat {words[0]}: options with a file: {options}")
        for option in set(options) - {"--replay", "--merge"}:
            for file in (folder / "no/folder/file", folder):
                begin = time.monotonic()
                done = command.run(moat, *words, option, str(file))
                if done.returncode != 3 or f"{file}: " not in done.stderr or done.stdout:
                    wrong.append(f"{words[0]} {option} {file}: {done.returncode} {done.stderr!r}")
                if time.monotonic() - begin > 20:
                    wrong.append(f"{words[0]} {option} {file} fails only after the work")
    return wrong


def files(moat: str, folder: pathlib.Path) -> list[str]:
    """The check of an output file leaves the file as it was; a failed write is exit status 3."""
    wrong = []
    kept = folder / "kept"
    kept.write_text("before\n")
    absent = folder / "absent"
    for file in (kept, absent):
        done = command.run(moat, "explore", "pud-slot", "--write-replay", str(file))
        if done.returncode != 0:
            wrong.append(f"--write-replay {file}: {done.returncode} {done.stderr}")
    if kept.read_text() != "before\n" or absent.exists():
        wrong.append("a run without a replay changes or creates its file")
    for words in (["audit", "--device", "nvme", "--inject", "overrun", "--case", "0", "--trace"],
                  ["explore", "pud-slot", "--variant", "old", "--write-replay"],
                  ["explore", "pud-slot", "--variant", "old", "--trace"]):
        done = command.run(moat, *words, "/dev/full")
        if done.returncode != 3 or "/dev/full: " not in done.stderr:
            wrong.append(f"moat {' '.join(words)} /dev/full: {done.returncode} {done.stderr!r}")
    # A file that moat opens must not become the closed standard output.
    trace = folder / "trace"
    run_into(None, [moat, "audit", "--device", "edu", "--operations", "1", "--trace", str(trace)])
    if trace.exists() and "findings" in trace.read_text():
        wrong.append("the report went into a file")
    return wrong


def unreadable_input(moat: str, folder: pathlib.Path) -> list[str]:
    """A folder in place of an input file is exit status 2, and damaged results are errors."""
    wrong = []
    itself = os.open(folder, os.O_RDONLY)
    for words, stdin in ((["explain", str(folder)], None), (["explain"], itself),
                         (["explain", "-"], itself), (["explore", "--replay", str(folder)], None),
                         (["explore", "--merge", str(folder)], None),
                         (["stress", "bar-walk", "--machine", "vfio", "--kernel-config", str(folder)],
                          None)):
        done = command.run(moat, *words, stdin=stdin)
        if done.returncode != 2 or done.stdout or not done.stderr:
            wrong.append(f"moat {' '.join(words)}: {done.returncode} {done.stdout} {done.stderr!r}")
    os.close(itself)
    done = subprocess.run([moat, "explain"], capture_output=True, timeout=60, check=False,
                          preexec_fn=lambda: os.close(0))
    if done.returncode != 2:
        wrong.append(f"moat explain <&-: {done.returncode}")
    good = command.run(moat, "explore", "pud-slot", "--json").stdout
    for field in re.findall(r'"(\w+)":', good):
        for damaged in (good.replace(f'"{field}"', '"other"'),
                        re.sub(rf'"{field}":("[^"]*"|[^,}}]+)', rf'"{field}":[]', good)):
            file = folder / "damaged"
            file.write_text(damaged)
            done = command.run(moat, "explore", "--merge", str(file))
            if done.returncode not in (0, 1, 2, 3) or "moat: " in done.stderr:
                wrong.append(f"--merge {damaged}: {done.returncode} {done.stderr!r}")
    return wrong


def main() -> int:
    moat = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        wrong = unwritable_output(moat, folder) + ends_early(moat, folder) + files(moat, folder) + \
            unreadable_input(moat, folder)
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
