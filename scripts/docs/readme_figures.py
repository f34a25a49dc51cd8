#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Compares README's table of figures with a run of the benchmarks that it names; `./dev bench --check-readme`.

Usage: readme_figures.py FOLDER, where bench_<area> lie. A count may differ by 5 %, a ratio by 35 %, and a time or a
rate by a factor of 2. Exit status 1: a figure lies outside of its band, or its benchmark printed no row.
"""
import dataclasses
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROW = re.compile(r'^\| ([^|]+) \| ([\d,.]+) ([^|]+) \| ([\d,.]+) (x )?[^|]* \| `\./dev bench (\w+) --filter "([^"]+)"` \|$',
                 re.MULTILINE)
COUNT, RATIO, TIME = 1.05, 1.35, 2.0
COUNTS = {"instructions", "executions"}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One row of README's table: a value with its unit, and what it is compared with."""
    what: str
    value: float
    unit: str
    beside: float
    is_ratio: bool
    area: str
    text: str  # a part of the benchmark row's name; the first such row counts


def number(text: str) -> float:
    return float(text.replace(",", ""))


def figures(readme: str) -> list[Figure]:
    return [Figure(what, number(value), unit, number(beside), bool(x), area, text)
            for what, value, unit, beside, x, area, text in ROW.findall(readme)]


def within(written: float, measured: float, factor: float) -> bool:
    return measured <= written * factor and written <= measured * factor


def problems(figure: Figure, rows: list[dict]) -> list[str]:
    """Return: what README has wrong in this row, one line each."""
    row = next((each for each in rows if figure.text in each["name"]), None)
    if row is None:
        return [f"{figure.what}: bench {figure.area} prints no row \"{figure.text}\""]
    is_count = row["unit"] in COUNTS
    beside = row["ratio"] if figure.is_ratio else row["against_value"]
    wrong = []
    if row["unit"] != figure.unit.replace("operations/s", "1/s"):
        wrong.append(f"{figure.what}: README has {figure.unit}, the benchmark {row['unit']}")
    for name, written, measured, factor in (
            ("value", figure.value, row["value"], COUNT if is_count else TIME),
            ("comparison", figure.beside, beside, COUNT if is_count else RATIO)):
        if not within(written, measured, factor):
            wrong.append(f"{figure.what}: {name} {written:g} in README, {measured:g} measured "
                         f"(band: a factor of {factor})")
    return wrong


def rows_of(program: pathlib.Path, text: str) -> list[dict]:
    """Return: the rows whose names contain `text`; none where the program was left out of the build."""
    if not program.exists():
        return []
    done = subprocess.run([program, "--json", "--filter", text], capture_output=True, text=True, timeout=600,
                          check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    failed = 0
    for figure in figures((ROOT / "README.md").read_text()):
        wrong = problems(figure, rows_of(folder / f"bench_{figure.area}", figure.text))
        print("\n".join(wrong) if wrong else f"{figure.what}: ok", flush=True)
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
