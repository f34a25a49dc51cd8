#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The README's code is an example's, which is compiled and run; its figures are rows of benchmarks.

Usage: readme_test.py ROOT. Each line of a ```cpp block must be in one file of examples/, in that order. Each
row of the table of figures must name an area and a row that `./dev bench AREA --filter TEXT` measures.
"""
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


def figure_problems(readme: str, sources: dict[str, str]) -> list[str]:
    figures = re.findall(r"^\|.*\| `\./dev bench (\w+) --filter \"([^\"]+)\"` \|$", readme, re.MULTILINE)
    wrong = [] if len(figures) >= 5 else [f"{len(figures)} figures"]
    rows = readme.partition("## How fast")[2].partition("\n## ")[0]
    if len(re.findall(r"^\|", rows, re.MULTILINE)) != len(figures) + 2:
        wrong.append("a figure without its command")
    for area, text in figures:
        if not any(text in source for name, source in sources.items() if name.startswith(area)):
            wrong.append(f"bench/{area}*.cpp has no row {text}")
    return wrong


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    readme = (root / "README.md").read_text()
    examples = [path.read_text() for path in sorted((root / "examples").glob("*.cpp"))]
    sources = {path.name: path.read_text() for path in (root / "bench").glob("*.cpp")}
    wrong = code_problems(readme, examples) + figure_problems(readme, sources)
    if not code_problems(readme.replace("received", "sent"), examples):
        wrong.append("not noticed: code that no example has")
    if not figure_problems(readme.replace("--filter \"", "--filter \"no "), sources):
        wrong.append("not noticed: a figure that nothing measures")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
