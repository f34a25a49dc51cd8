#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Every option that takes a number rejects invalid ones, by exit status 2 and its own name.

The options come from --help, so this test includes new ones. A new option of type TEXT needs a line
in NOT_NUMBERS and in GOOD_TEXT.

Usage: numbers_test.py MOAT, in the project's folder.
"""
import re
import sys

import command

WRONG = ["nan", "NaN", "inf", "-inf", "infinity", "-1", "-0.5", "1e400", "1e999999", "-1e-400",
         "18446744073709551616", "99999999999999999999999", "1e30", "", "1x", " 1", "1 ", "+1", "0x10",
         "one", "1,5", "--1", "²"]
# By type: a valid value, for options without bounds in --help, and more invalid ones.
GOOD = {"UINT": "1", "SIZE": "64k", "SECONDS": "0.5"}
ALSO_WRONG = {"UINT": ["1.5", "1e3"], "SIZE": ["16E", "1.5k", "4kk", "-4k", "18014398509481984k"],
              "SECONDS": ["0", "0.0", "-0.0", "1e10", "1000000001"]}
# Options of text; each (before, after) goes around an invalid number.
NOT_NUMBERS = {"--device": [], "--case": [("", ""), ("0-", ""), ("", "-9")],
               "--inject": [("overrun:", "")], "--shard": [("0/", ""), ("", "/3")]}
GOOD_TEXT = {"--case": "3-4", "--inject": "overrun:16", "--shard": "1/3", "--device": "edu"}
NO_NUMBERS = {"FILE", "FOLDER", "BDF", "BDF|DRIVER", "NAME", "SHEET", "vfio-user"}


def valued_options(text: str) -> list[tuple[str, str]]:
    """(name, type with its range) of those that take a value."""
    below = text.partition("\nOptions:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  (?:-\w,)?(--[a-z-]+) (\S+?)(?=[= ]|$)", re.sub(
        r"^(  --\S+ \w+):(?:(\d+) to (\d+)|from (\d+))", r"\1:\2\4-\3", below, flags=re.MULTILINE),
        re.MULTILINE)


def given(path: tuple[str, ...], name: str, value: str) -> list[str]:
    return [*path, f"{name}={value}"] if value.startswith("-") else [*path, name, value]


def main() -> int:
    moat = sys.argv[1]
    wrong: list[str] = []
    tested: dict[tuple[str, ...], int] = {}

    def rejects(words: list[str], name: str, value: str) -> None:
        done = command.run(moat, *words)
        said = done.stderr.splitlines()
        if done.returncode != 2 or done.stdout or not said or name not in said[0] or \
                f'"{value}" is not' not in said[0]:
            wrong.append(f"moat {' '.join(words)}: {done.returncode} {done.stderr!r}")
        tested[(*words[:2], name)] = tested.get((*words[:2], name), 0) + 1

    def accepts(words: list[str]) -> None:
        done = command.run(moat, *words)
        if done.returncode not in (0, 1):
            wrong.append(f"moat {' '.join(words)}: {done.returncode} {done.stderr!r}")

    seen_in_all = set()
    for path in command.all_paths(moat)[1:]:
        for name, kind in valued_options(command.run(moat, *path, "--help").stdout):
            base = kind.partition(":")[0]
            if base in NO_NUMBERS or "{" in kind:
                continue
            if path[0] in ("run", "serve") and base not in GOOD:
                continue # options_test.cpp and command_test.py of tests/run reject these
            # Scenarios share most options, so those are tested with the first one.
            if (key := (path[0], name, kind)) in seen_in_all:
                continue
            seen_in_all.add(key)
            if base == "TEXT":
                if name not in NOT_NUMBERS:
                    wrong.append(f"moat {' '.join(path)} {name}: NOT_NUMBERS and GOOD_TEXT lack it")
                    continue
                for before, after in NOT_NUMBERS[name]:
                    for value in WRONG + ALSO_WRONG["UINT"]:
                        rejects(given(path, name, f"{before}{value}{after}"), name,
                                f"{before}{value}{after}")
                accepts([*path, name, GOOD_TEXT[name]]) # --help would omit some
                continue
            if base not in GOOD:
                wrong.append(f"moat {' '.join(path)} {name}: unknown type {kind}; add it to GOOD")
                continue
            bounds = re.search(r":(\d+)-(\d*)$", kind)
            least, most = bounds.groups() if bounds else ("", "")
            more = [str(int(most) + 1)] if most else []
            more += [str(int(least) - 1)] if least not in ("", "0") else []
            for value in WRONG + ALSO_WRONG[base] + more:
                rejects(given(path, name, value), name, value)
            for value in filter(None, (least, most)) if bounds else [GOOD[base]]:
                accepts([*path, name, value, "--help"])
    if len(tested) < 20 or ("explore", "pud-slot", "--seed") not in tested or \
            ("stress", "bar-walk", "--time") not in tested:
        wrong.append(f"only these were found: {sorted(tested)}")
    # "-1" as a separate word, which CLI11 could parse as an option.
    for words in (["audit", "--seed", "-1"], ["stress", "bar-walk", "--time", "-1"],
                  ["explore", "pud-slot", "--walkers", "-1"]):
        rejects(words, words[-2], "-1")
    print("\n".join(wrong) if wrong else f"{len(tested)} options, {sum(tested.values())} numbers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
