#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The includes of the freestanding rooms against the list of headers that an embedder has.

-ffreestanding does not do this: libstdc++ lets it include <mutex>. Usage: freestanding.py [ROOT].
"""
import pathlib
import re
import subprocess
import sys

# Free of an operating system in C++23, or made so in C++26 with what g++ 12 has of them.
ALLOWED = set("""
    array atomic bit climits compare concepts cstddef cstdint expected functional initializer_list
    iterator limits memory new optional ranges span string_view tuple type_traits utility variant
    version
""".split())
FREESTANDING_SYNC = {"concept.hpp", "lock.hpp", "node.hpp", "serial.hpp"}

MARKER = re.compile(r'^# (\d+) "([^"]+)"')
SYSTEM = re.compile(r"^#include <([^>]+)>")


def freestanding_headers(include: pathlib.Path) -> list[pathlib.Path]:
    """The same as in cmake/moat_headers.cmake."""
    rooms = [include / "moat" / room for room in ("core", "sync", "page_table")]
    found = [path for room in rooms for path in sorted(room.rglob("*.hpp"))]
    return [path for path in found if path.name not in {"text.hpp", "owned_tables.hpp"}
            and (path.relative_to(include / "moat").parts[0] != "sync"
                 or path.name in FREESTANDING_SYNC)]


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    headers = freestanding_headers(root / "include")
    source = "".join(f'#include "{header.relative_to(root / "include")}"\n' for header in headers)
    # The preprocessor decides which of the includes count; those of the system it leaves as written.
    text = subprocess.run(
        ["clang++-19", "-std=c++23", "-ffreestanding", "-E", "-fkeep-system-includes",
         f"-I{root / 'include'}", "-x", "c++", "-"],
        input=source, capture_output=True, text=True, check=True).stdout
    problems = set()
    current = None
    for line in text.splitlines():
        marker = MARKER.match(line)
        system = SYSTEM.match(line)
        if marker:
            current = pathlib.Path(marker[2])
            if current.suffix == ".hpp" and current not in headers:
                problems.add(f"{current}: hosted, but a freestanding header includes it")
        elif system and system[1] not in ALLOWED:
            problems.add(f"{current}: <{system[1]}> is not on the list of freestanding headers")
    print("\n".join(sorted(problems)) if problems else f"{len(headers)} headers")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
