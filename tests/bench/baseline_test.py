#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`./dev bench --baseline` names the rows that changed beyond their band of noise, and no others."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def row(name: str, **changed) -> dict:
    return {"area": "dma", "name": name, "value": 100, "unit": "ns", "against": "a floor", "against_value": 50,
            "ratio": 2.0, "noise": 0.0, "better": "lower", "goal": None, "met": None} | changed


def counted(name: str, value: float) -> dict:
    return row(name, unit="instructions", value=value)


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(each) + "\n" for each in rows)


class Baseline(unittest.TestCase):
    def run_with(self, old: str, new: list[dict], *options: str) -> subprocess.CompletedProcess:
        """The script's run, with a program that prints `new`."""
        with tempfile.TemporaryDirectory() as folder:
            saved = pathlib.Path(folder) / "saved.json"
            saved.write_text(old)
            program = pathlib.Path(folder) / "bench_dma"
            program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines(new)}END\n")
            program.chmod(0o755)
            return subprocess.run([ROOT / "scripts/bench/baseline.py", saved, program, *options],
                                  capture_output=True, text=True, check=False)

    def expect(self, old: list[dict], new: list[dict], status: int, *found: str) -> None:
        """`found`: the beginning of each line but the last, which counts the rows."""
        done = self.run_with(lines(old), new)
        self.assertEqual(done.returncode, status, done)
        printed = done.stdout.splitlines()[:-1]
        self.assertEqual(len(printed), len(found), printed)
        for line, beginning in zip(printed, found):
            self.assertTrue(line.startswith(beginning), line)

    def test_a_run_equals_itself(self):
        rows = [row("a"), counted("b", 500)]
        self.expect(rows, rows, 0)

    def test_a_slower_machine_changes_no_ratio(self):
        self.expect([row("a")], [row("a", value=300, against_value=150)], 0)

    def test_a_ratio_beyond_its_band_is_worse_or_better(self):
        self.expect([row("a")], [row("a", ratio=2.3)], 1, "worse   dma: a: ratio 2 -> 2.3 (+15.0%, band 10.0%)")
        self.expect([row("a")], [row("a", ratio=1.7)], 0, "better  dma: a: ratio 2 -> 1.7 (-15.0%, band 10.0%)")
        self.expect([row("a")], [row("a", ratio=2.1)], 0)

    def test_a_noisy_row_has_a_wider_band(self):
        self.expect([row("a", noise=0.06)], [row("a", ratio=2.3)], 0)
        self.expect([row("a")], [row("a", ratio=2.3, noise=0.06)], 0)
        self.expect([row("a")], [row("a", ratio=2.5, noise=0.06)], 1, "worse   dma: a")

    def test_instructions_are_judged_by_their_number(self):
        self.expect([counted("a", 500)], [counted("a", 506)], 1, "worse   dma: a: instructions 500 -> 506")
        self.expect([counted("a", 500)], [counted("a", 504)], 0)
        self.expect([counted("a", 500)], [counted("a", 400)], 0, "better  dma: a")

    def test_more_is_better_where_the_row_says_so(self):
        self.expect([row("a", better="higher")], [row("a", better="higher", ratio=1.5)], 1, "worse")
        self.expect([row("a", better="higher")], [row("a", better="higher", ratio=2.5)], 0, "better")

    def test_a_time_without_another_side_is_not_judged(self):
        done = self.run_with(lines([row("a", ratio=None)]), [row("a", ratio=None, value=900)])
        self.assertEqual((done.returncode, done.stdout), (0, "0 rows judged, 1 not\n"))

    def test_rows_that_appear_and_disappear_are_listed(self):
        self.expect([row("a"), row("b")], [row("a"), row("c")], 0, "new     dma: c", "gone    dma: b")

    def test_what_was_not_run_is_not_gone(self):
        old = [row("map a"), row("b"), row("c", area="iova")]
        done = self.run_with(lines(old), [row("map a")], "--filter", "map")
        self.assertEqual((done.returncode, done.stdout), (0, "1 rows judged, 0 not\n"))

    def test_what_is_no_saved_run_is_refused(self):
        for text in ("no json\n", "{}\n", "[1]\n"):
            done = self.run_with(text, [row("a")])
            self.assertEqual((done.returncode, done.stdout), (2, ""), text)
            self.assertIn("saved.json: no saved run of ./dev bench --json", done.stderr)


if __name__ == "__main__":
    unittest.main()
