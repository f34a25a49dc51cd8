#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The tests check catches each violation when one is planted, and nothing else."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def check(text: str) -> list[str]:
    """The output of the check for a test that contains `text`."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tests/room/planted_test.cpp"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        done = subprocess.run([sys.executable, ROOT / "scripts/lint/tests.py", folder],
                              capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        assert done.returncode == (1 if lines else 0), done.stderr
        return lines


class Tests(unittest.TestCase):
    def expect(self, text: str, *found: str) -> None:
        lines = check(text)
        self.assertEqual(len(lines), len(found), lines)
        for line, expected in zip(lines, found):
            self.assertTrue(line.startswith("tests/room/planted_test.cpp:"), line)
            self.assertIn(expected, line)

    def test_names_of_the_house_pass(self):
        self.expect("TEST(Range, end_is_exclusive) {}\nTEST_F(Vtd2Queue, wraps_at_2_to_the_64) {}\n"
                    "INSTANTIATE_TEST_SUITE_P(Levels, Vtd2Queue, ::testing::Values(1));\n"
                    '#include "machine/soft/nvme.hpp"\n')

    def test_a_case_in_camel_case_is_refused(self):
        for macro in ("TEST", "TEST_F", "TEST_P", "TYPED_TEST", "TYPED_TEST_P"):
            self.expect(f"// 1\n{macro}(Range, EndIsExclusive) {{}}\n", ":2: EndIsExclusive: a case")

    def test_a_name_that_is_broken_into_the_next_line_is_found(self):
        self.expect("TEST(Range,\n     EndIsExclusive) {}\n", ":2: EndIsExclusive: a case")

    def test_a_suite_or_instantiation_in_snake_case_is_refused(self):
        self.expect("TEST(range_test, ends_once) {}\nTEST_P(range, ends_once) {}\n"
                    "INSTANTIATE_TEST_SUITE_P(all, Range, ::testing::Values(1));\n",
                    "range_test: a suite", "range: a suite", "all: an instantiation")

    def test_a_case_without_a_behaviour_is_refused(self):
        for case in ("overflow", "works_with_pages", "basic_mapping"):
            self.expect(f"TEST(Range, {case}) {{}}\n", f"{case}: states no behaviour")

    def test_a_disabled_test_is_refused(self):
        self.expect("TEST(Range, DISABLED_end) {}\n", "DISABLED_end: a disabled test")

    def test_an_include_past_the_libraries_is_refused(self):
        self.expect('#include "../../src/machine/soft/nvme.hpp"\n', ':1: write "room/file.hpp"')
        self.expect('#include "src/command/terminal.hpp"\n', ':1: write "room/file.hpp"')

    def test_the_repository_passes(self):
        done = subprocess.run([sys.executable, ROOT / "scripts/lint/tests.py", ROOT],
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)


if __name__ == "__main__":
    unittest.main()
