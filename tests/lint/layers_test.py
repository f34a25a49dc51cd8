#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The layer check catches each kind of violation when one is planted, and nothing else."""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


TABLE = (ROOT / "docs/architecture.md").read_text()


def check(files: dict[str, str], table: str | None = None) -> tuple[int, str]:
    """Runs the check over `files`; the real table fits them, unless another is given.

    Return: exit status and output.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "docs").mkdir()
        (root / "docs/architecture.md").write_text(table or only_rooms_of(TABLE, files))
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/lint/layers.py", root],
            capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr


def granted(*pairs: str) -> str:
    """A table of existing rooms, each with the rooms that it may include: "iova:core"."""
    head = "| room | what | may include | operating system | today |\n|---|---|---|---|---|\n"
    rows = (pair.split(":") for pair in pairs)
    return head + "".join(f"| {room} | . | {below or '-'} | no | yes |\n" for room, below in rows)


def only_rooms_of(table: str, files: dict[str, str]) -> str:
    """The table if only the rooms of `files` existed today."""
    there = {part for name in files for part in pathlib.PurePath(name).parts}
    return re.sub(r"(?m)^\| (\w+) (\|.*\|) (yes|planned) \|$",
                  lambda row: f"| {row[1]} {row[2]} {'yes' if row[1] in there else 'planned'} |",
                  table)


class Layers(unittest.TestCase):
    def accepts(self, name: str, text: str):
        status, said = check({name: text})
        self.assertEqual(status, 0, said)

    def catches(self, name: str, text: str, complaint: str):
        status, said = check({name: text})
        self.assertEqual(status, 1, said)
        self.assertIn(complaint, said)

    def test_down_is_allowed_also_past_a_room(self):
        status, said = check({
            "include/moat/iova/a.hpp":
                '#include "moat/iova/detail/b.hpp"\n#include "moat/sync/b.hpp"\n'
                '#include "moat/core/bits.hpp"\n#include <array>\n',
            "include/moat/sync/b.hpp": '#include "moat/core/bits.hpp"\n',
            "include/moat/core/bits.hpp": "",
        }, granted("iova:sync", "sync:core", "core:"))
        self.assertEqual(status, 0, said)

    def test_a_permission_that_nothing_uses(self):
        status, said = check({"include/moat/iova/a.hpp": "", "include/moat/core/a.hpp": ""},
                             granted("iova:core", "core:"))
        self.assertEqual(status, 1)
        self.assertIn("iova includes nothing of core", said)

    def test_the_detail_of_another_room(self):
        self.catches("include/moat/dma/a.hpp", '#include "moat/iova/detail/caches.hpp"\n',
                     "only iova may include moat/iova/detail/caches.hpp")

    def test_an_installed_header_that_includes_a_private_one(self):
        self.catches("include/moat/dma/a.hpp", '#include "dma/a.hpp"\n', "is not installed")

    def test_rooms_of_src_and_lab(self):
        self.catches("src/machine/a.cpp", '#include "audit/a.hpp"\n',
                     "machine may not include audit")
        self.catches("lab/explore/a.hpp", '#include "lab/scenarios/a.hpp"\n',
                     "explore may not include scenarios")

    def test_a_table_that_is_not_of_today(self):
        core = {"include/moat/core/a.hpp": ""}
        status, said = check(core, only_rooms_of(TABLE, {}))
        self.assertEqual(status, 1)
        self.assertIn("core is there; correct", said)
        status, said = check({}, only_rooms_of(TABLE, core))
        self.assertEqual(status, 1)
        self.assertIn("core is missing; correct", said)

    def test_a_header_that_includes_its_parent(self):
        self.catches("include/moat/core/a.hpp", '#include "moat/core/a.hpp"\n',
                     "a.hpp:1: an include cycle: a.hpp -> a.hpp")
        files = {"include/moat/iova/a.hpp": '#include "moat/iova/detail/b.hpp"\n',
                 "include/moat/iova/detail/b.hpp": '\n#include "moat/iova/detail/c.hpp"\n',
                 "include/moat/iova/detail/c.hpp": '#include "moat/iova/detail/b.hpp"\n'}
        status, said = check(files, granted("iova:"))
        self.assertEqual(status, 1, said)
        self.assertIn("detail/c.hpp:1: an include cycle: b.hpp -> c.hpp -> b.hpp", said)
        private = {"src/audit/a.hpp": '#include "audit/b.hpp"\n',
                   "src/audit/b.hpp": '#include "a.hpp"\n'}
        self.assertIn("b.hpp:1: an include cycle", check(private, granted("audit:"))[1])
        lab = {"lab/explore/a.hpp": '#include "lab/explore/b.hpp"\n',
               "lab/explore/b.hpp": '#include "lab/explore/a.hpp"\n'}
        self.assertIn("b.hpp:1: an include cycle", check(lab, granted("explore:"))[1])

    def test_up(self):
        self.catches("include/moat/core/a.hpp", '\n#include "moat/sync/lock.hpp"\n',
                     "include/moat/core/a.hpp:2: core may not include sync")

    def test_sideways(self):
        self.catches("include/moat/iova/a.hpp", '#include "moat/page_table/detail/map.hpp"\n',
                     "iova may not include page_table")

    def test_spaces_in_a_directive(self):
        self.catches("src/iova/a.cpp", ' #  include "moat/page_table/detail/map.hpp"\n',
                     "iova may not include page_table")

    def test_operating_system(self):
        for header in ("unistd.h", "sys/mman.h", "linux/vfio.h"):
            self.catches("src/dma/a.cpp", f"#include <{header}>\n", "operating system")
            self.accepts("src/platform/a.cpp", f'#include <{header}>\n#include "moat/core/a.hpp"\n')

    def test_a_room_that_nobody_planned(self):
        self.catches("include/moat/attic/a.hpp", "", "no room")

    def test_a_header_outside_of_every_room(self):
        self.catches("include/moat/a.hpp", "", "no room")

    def test_the_header_for_c(self):
        files = {"include/moat/moat.h": "#include <stdint.h>\n",
                 "src/api/a.cpp": '#include "moat/moat.h"\n#include "moat/core/b.hpp"\n',
                 "include/moat/core/b.hpp": ""}
        table = granted("api:core", "core:", "command:")
        self.assertEqual(check(files | {"src/command/a.cpp": ""}, table)[0], 0)
        status, said = check(files | {"include/moat/moat.h": '#include "command/a.hpp"\n',
                                      "src/command/a.cpp": ""}, table)
        self.assertEqual(status, 1, said)
        self.assertIn("api may not include command", said)
        self.catches("include/moat/dma/a.hpp", '#include "moat/moat.h"\n', "may not include api")

    def test_an_include_of_no_room(self):
        self.catches("include/moat/core/a.hpp", '#include "moat/attic/a.hpp"\n', "no room")

    def test_a_way_around_the_rooms(self):
        self.catches("include/moat/core/a.hpp", '#include "../sync/lock.hpp"\n', "neither")


if __name__ == "__main__":
    unittest.main()
