#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`moat audit --sheet` and `--compare`: files, tables, and which differences count.

Usage: sheet_test.py MOAT.
"""
import copy
import json
import pathlib
import re
import sys
import tempfile

import command


def changed(sheet: dict, measure: str, **fields) -> dict:
    """The sheet with other fields in this cell of "read", "data"."""
    other = copy.deepcopy(sheet)
    for row in other["rows"]:
        if (row["operation"], row["buffer"]) == ("read", "data"):
            for cell in row["cells"]:
                if cell["measure"] == measure:
                    cell.update(fields)
    return other


def main() -> int:
    moat = sys.argv[1]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def run(status: int, *words: str) -> str:
            done = command.run(moat, "audit", *words)
            if done.returncode != status:
                wrong.append(f"{words}: {done.returncode} instead of {status}\n{done.stdout}{done.stderr}")
            return done.stdout + done.stderr

        def shows(text: str, pattern: str) -> None:
            if not re.search(pattern, text):
                wrong.append(f"missing: {pattern}\n{text}")

        good, far = str(folder / "good.json"), str(folder / "far.json")
        text = run(0, "--device", "edu", "--sheet", good)
        shows(text, r"read, data +0 +0 +0 +0 +0\n")
        shows(text, r"read, data +1 +data-first +success +next-works\n")
        run(1, "--device", "edu", "--inject", "overrun:28672", "--sheet", far)
        text = run(1, "--compare", good, far)
        shows(text, "read, data, write-after: 0, now 28672\n")
        shows(text, "write, data, read-after: 0, now 28672\n")
        shows(text, "3 worse")
        shows(run(0, "--compare", far, good), " 0 worse")
        shows(run(0, "--compare", good, good), " 0 worse")

        sheet = json.loads(pathlib.Path(good).read_text())
        other = folder / "other.json"
        for status, before, after in (
                (1, {"value": 5, "resolution": 3}, {"value": 9, "resolution": 3}),
                (0, {"value": 5, "resolution": 3}, {"value": 8, "resolution": 3}),
                (0, {"value": 5, "resolution": 3}, {"value": 0, "resolution": 0}),
                (0, {"value": 5, "resolution": 3}, {"value": None, "resolution": 0}),
                (0, {"value": None, "resolution": 3}, {"value": 70, "resolution": 0})):
            pathlib.Path(far).write_text(json.dumps(changed(sheet, "late", **before)))
            other.write_text(json.dumps(changed(sheet, "late", **after)))
            run(status, "--compare", far, str(other))
        other.write_text(json.dumps(changed(sheet, "recovery", word="dead")))
        shows(run(1, "--compare", good, str(other)), "recovery: next-works, now dead")
        run(0, "--compare", str(other), good)
        other.write_text(json.dumps({**sheet, "rows": sheet["rows"][:1]}))
        shows(run(0, "--compare", good, str(other)), "and not measured in")

        for content in ("", "[]", "{}", "no JSON", '{"schema":"moat.sheet/1"}', "\0\xff",
                        '{"schema":"moat.sheet/1","machine":"a","device":"b","rows":[{}]}'):
            other.write_text(content)
            shows(run(2, "--compare", good, str(other)), "other.json: not a data sheet in JSON")
        shows(run(2, "--compare", good, str(folder / "absent")), "absent: cannot be read")

        page = folder / "sheet.html"
        run(1, "--device", "nvme", "--inject", "late:64:50", "--sheet", str(page))
        shows(page.read_text(), r"(?s)<!DOCTYPE html>.*<td>read<td>data.*late-after|<th>late")
        if re.search(r"(src|href)=", page.read_text()):
            wrong.append("the page loads something")
        shows(run(2, "--sheet", good), "--sheet measures one device")
        shows(run(2, "--device", "edu", "--inject", "overrun:64:50"), "is not a fault")
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
