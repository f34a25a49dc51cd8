#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compares a new run of benchmarks with a saved one; `./dev bench [AREA] --baseline FILE`.

Usage: baseline.py FILE PROGRAM... [--filter TEXT]. FILE is what the same programs printed with --json. A row is judged
by its ratio to the other side of the same run, or by its value if that is a count. Its band of noise is the larger of
its unit's least band and three times what the two runs measured. Other values are times, which no two runs share: they
are not judged. Exit status 1: a row became worse; 2: FILE is not a saved run.
"""
import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

COUNTS = {"instructions", "executions", "bytes"}
LEAST_BAND = {True: 0.01, False: 0.10}  # of counts; of ratios of times
NOISES = 3


@dataclasses.dataclass(frozen=True)
class Change:
    """How a row differs between two runs; `factor` above 1 is worse."""
    name: str
    was: float
    now: float
    what: str  # "ratio", or the unit of a count
    factor: float
    band: float

    def verdict(self) -> str:
        if self.factor > 1 + self.band:
            return "worse"
        return "better" if self.factor * (1 + self.band) < 1 else ""

    def __str__(self) -> str:
        return (f"{self.verdict():7} {self.name}: {self.what} {self.was:g} -> {self.now:g} "
                f"({self.now / self.was - 1:+.1%}, band {self.band:.1%})")


def change(old: dict, new: dict) -> Change | None:
    """Return: nothing for a row that cannot be judged."""
    counted = new["unit"] in COUNTS
    field = "value" if counted else "ratio"
    was, now = old[field], new[field]
    if not was or not now or was < 0 or now < 0 or old["unit"] != new["unit"]:
        return None
    band = max(LEAST_BAND[counted], NOISES * max(old.get("noise") or 0, new.get("noise") or 0))
    factor = now / was if new["better"] == "lower" else was / now
    return Change(f"{new['area']}: {new['name']}", was, now, new["unit"] if counted else "ratio", factor, band)


def read_run(text: str) -> dict[tuple[str, str], dict]:
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return {(row["area"], row["name"]): row for row in rows}


def compare(old: dict, new: dict, wanted: str) -> list[str]:
    """Return: one line for each row that changed, appeared or disappeared; the worse ones first."""
    changes = [found for key, row in new.items() if key in old and (found := change(old[key], row))]
    lines = [str(each) for verdict in ("worse", "better") for each in changes if each.verdict() == verdict]
    areas = {area for area, _ in new}
    lines += [f"new     {area}: {name}" for area, name in new if (area, name) not in old]
    lines += [f"gone    {area}: {name}" for area, name in old
              if area in areas and wanted in name and (area, name) not in new]
    judged = len(changes)
    return lines + [f"{judged} rows judged, {len(new) - judged} not"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="baseline.py", usage="%(prog)s FILE PROGRAM... [--filter TEXT]")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    parser.add_argument("--filter", default="")
    arguments = parser.parse_args()
    try:
        old = read_run(arguments.file.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{arguments.file}: no saved run of ./dev bench --json ({error})", file=sys.stderr)
        return 2
    new = {}
    for program in arguments.programs:
        done = subprocess.run([program, "--json", "--filter", arguments.filter], stdout=subprocess.PIPE, text=True,
                              check=True)
        new |= read_run(done.stdout)
    lines = compare(old, new, arguments.filter)
    print("\n".join(lines))
    return 1 if any(line.startswith("worse") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
