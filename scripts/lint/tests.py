#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The tests check: names of one style, and includes that go through a library's folder.

Suites and instantiations are CamelCase like classes; a case is snake_case and states a behaviour:
TEST(GracePeriod, outlasts_a_section_that_was_open). One word, or "works", states none. Disabled
tests and "../../src" are refused.

Usage: tests.py [ROOT]. Prints each violation as FILE:LINE: why; the exit status says if any.
"""
import pathlib
import re
import sys

SUITE = re.compile(r"([A-Z][a-z0-9]*)+")
CASE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
VAGUE = {"works", "basic", "basics", "simple", "sanity", "misc"}
TEST = re.compile(r"^[ \t]*(?:TYPED_)?TEST(?:_F|_P)?\(\s*(\w+)\s*,\s*(\w+)\s*\)", re.M)
INSTANTIATION = re.compile(r"^[ \t]*INSTANTIATE_(?:TYPED_)?TEST_SUITE_P\(\s*(\w+)\s*,", re.M)
PRIVATE = re.compile(r'^\s*#\s*include\s*"((?:\.\./)+|)src/', re.M)


def violations(text: str):
    """Yields each violation as the offset where it lies and what is wrong."""
    for test in TEST.finditer(text):
        suite, case = test.groups()
        if not SUITE.fullmatch(suite):
            yield test.start(1), f"{suite}: a suite's name is CamelCase"
        if case.startswith("DISABLED_"):
            yield test.start(2), f"{case}: a disabled test cannot fail"
        elif not CASE.fullmatch(case):
            yield test.start(2), f"{case}: a case's name is snake_case"
        elif "_" not in case or case.split("_")[0] in VAGUE:
            yield test.start(2), f"{case}: states no behaviour; write what holds: ends_are_exclusive"
    for instantiation in INSTANTIATION.finditer(text):
        if not SUITE.fullmatch(instantiation[1]):
            yield instantiation.start(1), f"{instantiation[1]}: an instantiation's name is CamelCase"
    for include in PRIVATE.finditer(text):
        yield include.start(1), 'write "room/file.hpp", and link the room or name its folder'


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    failed = False
    for path in sorted((root / "tests").rglob("*.[ch]pp")):
        text = path.read_text()
        for at, why in violations(text):
            print(f"{path.relative_to(root)}:{text.count(chr(10), 0, at) + 1}: {why}")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
