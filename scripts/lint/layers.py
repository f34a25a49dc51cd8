#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The layer check: every include of the rooms against the table of docs/architecture.md.

Usage: layers.py [ROOT]. Prints each violation as FILE:LINE: why; the exit status says if any.
"""
import pathlib
import re
import sys
from dataclasses import dataclass

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
ROW = re.compile(r"^\|([^|]*)\|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|")
# Compilers' own headers; they need no operating system.
COMPILER_HEADERS = re.compile(
    r"^(sanitizer|valgrind)/|^[a-z0-9]*intrin\.h$|^cxxabi\.h$|^std(def|int)\.h$")
# The one header that lies in no folder of a room, so that C users write "moat/moat.h".
C_HEADER = ("include", "moat", "moat.h")


@dataclass
class Room:
    may_include: set[str]
    operating_system: bool
    exists: bool


def read_table(text: str) -> dict[str, Room]:
    """The rows of the table whose head begins with `| room |`."""
    rooms: dict[str, Room] = {}
    inside = False
    for line in text.splitlines():
        row = ROW.match(line)
        if not row:
            inside = False
        elif row[1].strip() == "room":
            inside = True
        elif inside and not row[1].startswith("-"):
            names = {name.strip() for name in row[2].split(",")} - {"-", ""}
            rooms[row[1].strip()] = Room(names, row[3].strip() == "yes", row[4].strip() == "yes")
    for name, room in rooms.items():
        unknown = room.may_include - rooms.keys()
        if unknown:
            sys.exit(f"docs/architecture.md: {name} names rooms that have no row: {unknown}")
    return rooms


def reachable(rooms: dict[str, Room], name: str, path: tuple[str, ...] = ()) -> set[str]:
    """The rooms that `name` may include, itself among them."""
    if name in path:
        sys.exit(f"docs/architecture.md: the table has a circle through {name}")
    found = {name}
    for below in rooms[name].may_include:
        found |= reachable(rooms, below, (*path, name))
    return found


def room_of(path: pathlib.PurePath) -> str | None:
    """include/moat/ROOM/..., src/ROOM/..., tools/..., scenarios/..., include/moat/moat.h"""
    parts = path.parts
    if parts[0] in ("tools", "scenarios"):
        return parts[0]
    if parts == C_HEADER:
        return "c_api"
    if parts[:2] == ("include", "moat") and len(parts) > 3:
        return parts[2]
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    return None


def check_existence(root: pathlib.Path, rooms: dict[str, Room]) -> list[str]:
    """The column `today` says what is there."""
    problems = []
    for name, room in rooms.items():
        folders = [root / name] if name in ("tools", "scenarios") else [
            root / "include/moat" / name, root / "src" / name]
        exists = any(folder.is_dir() for folder in folders)
        if exists != room.exists:
            problems.append(f"docs/architecture.md: {name} is "
                            f"{'there' if exists else 'not there'} today; the table says otherwise")
    return problems


def check_include(rooms, room: str, bracket: str, name: str) -> str | None:
    """Return: what is wrong, or None."""
    if name.startswith("moat/"):
        wanted = "c_api" if name == "moat/moat.h" else name.split("/")[1]
        if wanted not in rooms:
            return f"{name} belongs to no room"
        if wanted not in reachable(rooms, room):
            return f"{room} may not include {wanted} ({name})"
    elif bracket == '"':
        if ".." in name or room not in ("tools", "scenarios") and "/" in name:
            return f'{name} is neither "moat/..." nor beside this file'
    elif name.endswith(".h") and not rooms[room].operating_system:
        if not COMPILER_HEADERS.search(name):
            return f"<{name}> belongs to the operating system, and {room} may not include it"
    return None


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    rooms = read_table((root / "docs/architecture.md").read_text())
    problems = check_existence(root, rooms)
    files = 0
    for folder in ("include", "src", "tools", "scenarios"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".hpp", ".cpp", ".h", ".c"):
                continue
            files += 1
            relative = path.relative_to(root)
            room = room_of(relative)
            if room not in rooms:
                problems.append(f"{relative}:1: it lies in no room of docs/architecture.md")
                continue
            for number, line in enumerate(path.read_text().splitlines(), 1):
                include = INCLUDE.match(line)
                wrong = include and check_include(rooms, room, include[1], include[2])
                if wrong:
                    problems.append(f"{relative}:{number}: {wrong}")
    print("\n".join(problems) if problems else f"{files} files, {len(rooms)} rooms")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
