#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""clang-tidy over every source, and over every header through one generated source a room.

A source that passed is not looked at again until it, a header of it, or the list changes. Each
diagnostic is printed once, however many sources include its header; then the slowest sources.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "build/lint/units"
PASSED = ROOT / "build/lint/passed"
FOLDERS = ("src", "lab", "tests", "bench", "fuzz", "examples")
# The build whose flags sources have, and which has all of them.
PRESET = "clang"
CONFIGURATION = b"".join(each.read_bytes() for each in (ROOT / ".clang-tidy",
                                                         *sorted((ROOT / "src").glob("*/.clang-tidy")),
                                                         *sorted(ROOT.glob("*/.clang-tidy"))))
HEADER_FLAGS = ["-std=gnu++23", "-I" + str(ROOT / "include")]
# Of tests that the build lacks: they include what lies beside them and in other tests' folders.
TEST_FLAGS = ["-I" + str(ROOT / folder) for folder in (".", "src", "tests", "tests/iommu")]
DIAGNOSTIC = re.compile(r"^(.*:\d+:\d+: (?:error|warning): .*)$", re.MULTILINE)


def header_units() -> list[pathlib.Path]:
    """One source a room that includes each of its headers."""
    UNITS.mkdir(parents=True, exist_ok=True)
    for old in UNITS.iterdir():
        old.unlink()
    include = ROOT / "include"
    for room in sorted(each for each in (include / "moat").iterdir() if each.is_dir()):
        headers = sorted(room.rglob("*.hpp"))
        text = "".join(f'#include "{each.relative_to(include)}"\n' for each in headers)
        (UNITS / f"{room.name}.cpp").write_text(text)
    return sorted(UNITS.iterdir())


def flags_of_sources() -> dict[pathlib.Path, list[str]]:
    """What CMake compiles each source with, the compiler and the files left out."""
    flags: dict[pathlib.Path, list[str]] = {}
    for entry in json.loads((ROOT / f"build/{PRESET}/compile_commands.json").read_text()):
        if not entry["file"].endswith(".cpp"):
            continue
        words = shlex.split(entry["command"])
        start = next(i for i, word in enumerate(words) if "clang++" in word) + 1
        kept = words[start:words.index("-o")] if "-o" in words else words[start:]
        flags.setdefault(pathlib.Path(entry["file"]), kept)
    return flags


def sources() -> list[pathlib.Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.cpp"))]
    return [path for path in found if "must_not_compile" not in path.parts]


def tidy(source: pathlib.Path, flags: list[str]) -> tuple[bool, str, float]:
    """Return: whether it passed, what was said, and the seconds it took."""
    began = time.monotonic()
    expanded = subprocess.run(["clang++-19", *flags, "-E", str(source)],
                              capture_output=True, check=False).stdout
    key = PASSED / hashlib.sha256(expanded + CONFIGURATION).hexdigest()
    if key.exists():
        return True, key.read_text(), time.monotonic() - began
    done = subprocess.run(["clang-tidy-19", "--quiet", str(source), "--", *flags],
                          capture_output=True, text=True, check=False)
    if done.returncode == 0:
        key.write_text(done.stdout)
    return done.returncode == 0, done.stdout, time.monotonic() - began


def main() -> int:
    PASSED.mkdir(parents=True, exist_ok=True)
    known = flags_of_sources()
    work = {unit: HEADER_FLAGS for unit in header_units()}
    work |= {path: known.get(path, HEADER_FLAGS + TEST_FLAGS) for path in sources()}
    said = set()
    times = []
    passed = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, (good, text, seconds) in zip(work, pool.map(tidy, work, work.values())):
            passed &= good
            times.append((seconds, path.relative_to(ROOT)))
            for part in re.split(r"(?m)^(?=\S+:\d+:\d+: (?:error|warning): )", text):
                if DIAGNOSTIC.match(part) and part.split("\n")[0] not in said:
                    said.add(part.split("\n")[0])
                    print(part, end="", flush=True)
    for seconds, path in sorted(times, reverse=True)[:5]:
        print(f"{seconds:6.1f} s {path}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
