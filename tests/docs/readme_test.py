#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The README's code is an example's, which is compiled and run; its figures are rows of benchmarks.

Usage: readme_test.py ROOT. Each line of a ```cpp block must be in one file of examples/, in that order. Each
row of the table of figures must name an area and a row that `./dev bench AREA --filter TEXT` measures. What
`./dev bench --check-readme` calls a difference is tested here without a benchmark.
"""
import dataclasses
import pathlib
import re
import sys


def plain(line: str) -> str:
    """A statement without its layout and its comment."""
    return re.sub(r"\s+", " ", re.sub(r"//.*", "", line)).strip()


def is_in_order(block: str, example: str) -> bool:
    lines = [plain(line) for line in example.splitlines()]
    at = 0
    for wanted in filter(None, map(plain, block.splitlines())):
        if wanted not in lines[at:]:
            return False
        at = lines.index(wanted, at) + 1
    return True


def code_problems(readme: str, examples: list[str]) -> list[str]:
    blocks = re.findall(r"```cpp\n(.*?)```", readme, re.DOTALL)
    wrong = [] if blocks else ["no code"]
    for block in blocks:
        if not any(is_in_order(block, example) for example in examples):
            wrong.append(f"no example has this, line by line:\n{block}")
        if len(block.splitlines()) > 15:
            wrong.append("the code is longer than 15 lines")
    return wrong


def figure_problems(readme: str, sources: dict[str, str], rows: list) -> list[str]:
    wrong = [] if len(rows) >= 5 else [f"{len(rows)} figures"]
    table = readme.partition("## How fast")[2].partition("\n## ")[0]
    if len(re.findall(r"^\|", table, re.MULTILINE)) != len(rows) + 2:
        wrong.append("a figure without a value, a comparison or a command")
    for row in rows:
        if not any(row.text in source for name, source in sources.items() if name.startswith(row.area)):
            wrong.append(f"bench/{row.area}*.cpp has no row {row.text}")
    return wrong


def band_problems(readme_figures, rows: list) -> list[str]:
    """Each figure agrees with itself, and not with one beyond its band."""
    wrong = []
    for row in rows:
        unit = row.unit.replace("operations/s", "1/s")
        of_counts = unit in readme_figures.COUNTS
        measured = {"name": "x " + row.text, "unit": unit, "value": row.value, "ratio": row.beside,
                    "against_value": row.beside}
        wrong += readme_figures.problems(row, [measured])
        for changed in ({"value": row.value * (1.06 if of_counts else 2.1)},
                        {"ratio": row.beside * 0.7, "against_value": row.beside * 0.7},
                        {"unit": "apples"}, {"name": "another"}):
            if not readme_figures.problems(row, [{**measured, **changed}]):
                wrong.append(f"not noticed in {row.what}: {changed}")
        small = dataclasses.replace(row, value=row.value * (1.04 if of_counts else 1.9))
        wrong += readme_figures.problems(small, [measured])
    return wrong


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    readme = (root / "README.md").read_text()
    examples = [path.read_text() for path in sorted((root / "examples").glob("*.cpp"))]
    sources = {path.name: path.read_text() for path in (root / "bench").glob("*.cpp")}
    sys.path.insert(0, str(root / "scripts/docs"))
    import readme_figures  # pylint: disable=import-outside-toplevel
    rows = readme_figures.figures(readme)
    wrong = code_problems(readme, examples) + figure_problems(readme, sources, rows)
    wrong += band_problems(readme_figures, rows)
    if not code_problems(readme.replace("registers", "pages"), examples):
        wrong.append("not noticed: code that no example has")
    renamed = [dataclasses.replace(row, text="no " + row.text) for row in rows]
    if not figure_problems(readme, sources, renamed) or not figure_problems(readme, sources, rows[1:]):
        wrong.append("not noticed: a figure that nothing measures")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
