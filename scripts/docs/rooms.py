#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Doxygen's group of each room, from the table of docs/architecture.md. Prints them."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/lint"))
import layers  # noqa: E402


def main() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = layers.read_table(text)
    about = {row[1].strip(): row[0].split("|")[2].strip() for row in
             (layers.ROW.match(line) for line in text.splitlines()) if row}
    for name, room in rooms.items():
        if not any((ROOT / "include/moat" / name).glob("*.hpp")):
            continue # it shows nothing, or only what moat.hpp compiles in
        below = ", ".join(f"\\ref room_{each} \"{each}\"" for each in sorted(room.may_include))
        print(f"/** \\defgroup room_{name} {name}\n * The room `{name}`: {about[name]}. It includes "
              f"{below or 'no other room'}; \\ref md_docs_architecture says why.\n */")


if __name__ == "__main__":
    main()
