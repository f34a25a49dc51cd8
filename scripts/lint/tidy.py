#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""clang-tidy over every source, and over every header through one generated source.

Sources are joined, those of a target first and then of several, so that clang-tidy reads their
headers once: each joined source is one file of their texts, which every check takes for the main
file. Sources that cannot be joined are halved until each part compiles. What passed is not looked at
again until a source, a header of it, or the list of checks changes. Each diagnostic is printed
once, however many sources include its header; then the slowest sources.
"""
import concurrent.futures
import dataclasses
import hashlib
import json
import math
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
MOST_JOINED = 16 # of one target
MOST_LINES = 6000 # of several
# Flags that no check reads, so that targets may differ in them.
OF_THE_CODE = re.compile(r"-O\d|-f(PIC|visibility|tls-model|sanitize|file-prefix-map|no-optimize|no-delete)|"
                         r"-D\w+_EXPORTS")
# Their sources share a namespace, so that two targets may declare the same name.
ONE_NAMESPACE = ("src/command/", "tests/", "bench/", "fuzz/", "examples/")
SHARED = {"moat", "LLVMFuzzerTestOneInput"}
DECLARED = re.compile(r"^(?:TEST\w*\((\w+, \w+)\)|using (?:\w+::)*(\w+)(?: =|;)|"
                      r"(?:class|struct|enum class|namespace) (\w+)|"
                      r"[A-Za-z_\[][\w:<>&*, \[\]\"]*?[ *&](\w+)(?:\(|\{|\[| =|;))", re.MULTILINE)
# Of tests that the build lacks: they include what lies beside them and in other tests' folders.
TEST_FLAGS = ["-I" + str(ROOT / folder) for folder in (".", "src", "tests", "tests/iommu")]
DIAGNOSTIC = re.compile(r"^(.*:\d+:\d+: (?:error|warning): .*)$", re.MULTILINE)


def flags_of_sources() -> dict[pathlib.Path, tuple[str, list[str]]]:
    """The target of each source, and its flags there without the compiler and the files."""
    flags: dict[pathlib.Path, tuple[str, list[str]]] = {}
    for entry in json.loads((ROOT / f"build/{PRESET}/compile_commands.json").read_text()):
        if not entry["file"].endswith(".cpp"):
            continue
        words = shlex.split(entry["command"])
        start = next(i for i, word in enumerate(words) if "clang++" in word) + 1
        target = re.search(r"CMakeFiles/(\w+)\.dir/", entry["command"])[1]
        flags.setdefault(pathlib.Path(entry["file"]), (target, words[start:words.index("-o")]))
    return flags


def sources() -> list[pathlib.Path]:
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.cpp"))]
    return [path for path in found if "must_not_compile" not in path.parts]


def with_own_headers(source: pathlib.Path) -> str:
    """Its text; what lies beside it is included by its path, as other folders have such names, too."""
    def place(found: re.Match) -> str:
        own = source.parent / found[2]
        return f'{found[1]}"{own}"' if own.exists() else found[0]
    return re.sub(r'(?m)^(#include )"([^"]+)"', place, source.read_text())


@dataclasses.dataclass
class Unit:
    """What one run of clang-tidy reads."""
    path: pathlib.Path
    flags: list[str]
    parts: list[pathlib.Path] = dataclasses.field(default_factory=list)
    lines: list[tuple[pathlib.Path, int]] = dataclasses.field(default_factory=list)

    def join(self) -> None:
        """Write the parts into one file, and remember where each of its lines is from."""
        text = ""
        for number, part in enumerate(self.parts):
            # After a definition, readability-duplicate-include allows the same headers again.
            entry = "LLVMFuzzerTestOneInput" # each fuzzer has one
            text += f"#define MOAT_PART_{number}\n" + with_own_headers(part).replace(entry, f"{entry}{number}")
            self.lines.append((part, 0))
            self.lines += [(part, 1 + i) for i in range(len(part.read_text().splitlines()))]
        self.path.write_text(text)

    def configuration(self) -> pathlib.Path:
        """The list of checks of its sources' folder."""
        folder = (self.parts or [self.path])[0].parent
        lists = (each / ".clang-tidy" for each in (folder, *folder.parents))
        return next(each for each in lists if each.exists())

    def halves(self) -> list["Unit"]:
        middle = len(self.parts) // 2
        return [joined(self.path.stem + half, self.flags, parts)
                for half, parts in (("a", self.parts[:middle]), ("b", self.parts[middle:]))]

    def at_its_source(self, text: str) -> str:
        """The diagnostics, with places of this unit's file replaced by those of its parts."""
        def place(found: re.Match) -> str:
            part, line = self.lines[int(found[1]) - 1]
            return f"{part}:{line}:"
        if not self.parts:
            return text
        text = re.sub(rf"{re.escape(str(self.path))}:(\d+):", place, text)
        return re.sub(r"(?m)^ *\d+ \|", "      |", text)


def joined(name: str, flags: list[str], parts: list[pathlib.Path]) -> Unit:
    if len(parts) == 1:
        return Unit(parts[0], flags)
    unit = Unit(UNITS / f"{name}.cpp", flags, parts)
    unit.join()
    return unit


def diagnostics(text: str) -> list[str]:
    """Each with its notes."""
    parts = re.split(r"(?m)^(?=\S+:\d+:\d+: (?:error|warning): )", text)
    return [part for part in parts if DIAGNOSTIC.match(part)]


def is_error(diagnostic: str) -> bool:
    return ": error: " in diagnostic.split("\n")[0]


def is_between_parts(diagnostic: str) -> bool:
    """Whether it is about a local with the name of what another source declares."""
    other = re.search(r"(?m)^(\S+\.cpp):\d+:\d+: note: previous declaration is here", diagnostic)
    return ("[clang-diagnostic-shadow" in diagnostic and other is not None
            and not diagnostic.startswith(other[1] + ":"))


@dataclasses.dataclass
class Block:
    """Sources that are joined with each other at least."""
    name: str
    kind: tuple # only those of one kind can be joined
    folders: list[str] # that are searched for headers
    paths: list[pathlib.Path]

    def lines(self) -> int:
        return sum(len(each.read_text().splitlines()) for each in self.paths)

    def text(self) -> str:
        return "".join(each.read_text() for each in self.paths
                       if str(each.relative_to(ROOT)).startswith(ONE_NAMESPACE))

    def declared(self) -> set[str]:
        return {name for found in DECLARED.findall(self.text()) for name in found if name} - SHARED

    def clashes(self, other: "Block") -> bool:
        """Whether one may declare a name that the other one uses."""
        mine, others = (set(re.findall(r"\w+", each.text())) for each in (self, other))
        return bool(self.declared() & others or other.declared() & mine)


def split_flags(flags: list[str]) -> tuple[list[str], list[str]]:
    """The folders that are searched for headers, and the flags that a check may notice."""
    folders, others = [], []
    words = iter(flags)
    for word in words:
        if word in ("-isystem", "-idirafter"):
            folders.append(f"{word}{next(words)}")
        elif word.startswith("-I"):
            folders.append(word)
        elif not OF_THE_CODE.match(word):
            others.append(word)
    return folders, others


def blocks() -> list[Block]:
    """Those of a target have the same size."""
    known = flags_of_sources()
    targets: dict[tuple, list[pathlib.Path]] = {}
    for path in sources():
        target, flags = known.get(path, (path.stem, HEADER_FLAGS + TEST_FLAGS))
        targets.setdefault((target, tuple(flags)), []).append(path)
    found = []
    for (target, flags), paths in targets.items():
        folders, others = split_flags(list(flags))
        mutated = any("mutants" in each for each in folders) # their headers shadow the shipped ones
        kind = (Unit(paths[0], []).configuration(), tuple(others), mutated)
        size = math.ceil(len(paths) / math.ceil(len(paths) / MOST_JOINED))
        found += [Block(target, kind, folders, paths[first:first + size])
                  for first in range(0, len(paths), size)]
    return found


def joined_blocks() -> list[Block]:
    """Each is added to the first that has room for it; the largest come first."""
    found: list[Block] = []
    for block in sorted(blocks(), key=Block.lines, reverse=True):
        for other in found:
            if (other.kind == block.kind and other.lines() + block.lines() <= MOST_LINES
                    and not other.clashes(block)):
                other.paths += block.paths
                other.folders += [each for each in block.folders if each not in other.folders]
                break
        else:
            found.append(block)
    return found


def header_unit() -> Unit:
    """One source that includes each header."""
    include = ROOT / "include"
    path = UNITS / "headers.cpp"
    path.write_text("".join(f'#include "{each.relative_to(include)}"\n'
                            for each in sorted(include.rglob("*.hpp"))))
    return Unit(path, HEADER_FLAGS)


def units() -> list[Unit]:
    """The largest come first, so that no processor waits for the last one."""
    found = [joined(f"{each.name}_{number}", [*each.kind[1], *each.folders], each.paths)
             for number, each in enumerate(joined_blocks())]
    return [header_unit(), *found]


@dataclasses.dataclass
class Result:
    found: list[str]
    times: list[tuple[float, pathlib.Path]]


def tidy(unit: Unit) -> Result:
    began = time.monotonic()
    expanded = subprocess.run(["clang++-19", *unit.flags, "-E", str(unit.path)],
                              capture_output=True, check=False).stdout
    key = PASSED / hashlib.sha256(expanded + CONFIGURATION).hexdigest()
    if key.exists():
        return Result(diagnostics(key.read_text()), [(time.monotonic() - began, unit.path)])
    done = subprocess.run(["clang-tidy-19", "--quiet", f"--config-file={unit.configuration()}",
                           str(unit.path), "--", *unit.flags],
                          capture_output=True, text=True, check=False)
    times = [(time.monotonic() - began, unit.path)]
    if unit.parts and "[clang-diagnostic-error" in done.stdout:
        results = [tidy(each) for each in unit.halves()]
        return Result(sum((each.found for each in results), []),
                      sum((each.times for each in results), times))
    found = diagnostics(unit.at_its_source(done.stdout))
    if done.returncode != 0 and not any(map(is_error, found)):
        found.append(f"{unit.path}:1:1: error: clang-tidy failed: {done.stderr}\n")
    found = [each for each in found if not is_between_parts(each)]
    if not any(map(is_error, found)):
        key.write_text("".join(found))
    return Result(found, times)


def main() -> int:
    PASSED.mkdir(parents=True, exist_ok=True)
    UNITS.mkdir(parents=True, exist_ok=True)
    for old in UNITS.iterdir():
        old.unlink()
    work = units()
    said = set()
    times = []
    passed = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(tidy, work):
            times += result.times
            for part in result.found:
                passed &= not is_error(part)
                if part.split("\n")[0] not in said:
                    said.add(part.split("\n")[0])
                    print(part, end="", flush=True)
    for seconds, path in sorted(times, reverse=True)[:5]:
        print(f"{seconds:6.1f} s {path.relative_to(ROOT)}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
