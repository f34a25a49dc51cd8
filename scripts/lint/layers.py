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
# Headers that lie beside the rooms' folders, so that users write "moat/moat.h": what api offers.
FRONT = {"moat/moat.h", "moat/moat.hpp"}
FRONT_ROOM = "api"
# What an include's path begins with, and where that lies; "moat/" and "lab/" are followed by a room.
FOLDERS = ("include/moat", "src", "lab")


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
            sys.exit(f"docs/architecture.md: {name} includes unknown rooms: {unknown}")
    return rooms


def reachable(rooms: dict[str, Room], name: str, path: tuple[str, ...] = ()) -> set[str]:
    """The rooms that `name` may include, itself among them."""
    if name in path:
        sys.exit(f"docs/architecture.md: the table has a cycle through {name}")
    found = {name}
    for below in rooms[name].may_include:
        found |= reachable(rooms, below, (*path, name))
    return found


def room_of(path: pathlib.PurePath) -> str | None:
    """The room of include/moat/ROOM/..., src/ROOM/..., lab/ROOM/... or of a header of FRONT."""
    if path.as_posix().removeprefix("include/") in FRONT:
        return FRONT_ROOM
    for folder in FOLDERS:
        if path.is_relative_to(folder) and len(path.relative_to(folder).parts) > 1:
            return path.relative_to(folder).parts[0]
    return None


def included_room(name: str) -> str:
    """The room that an include's path names: moat/ROOM/x, lab/ROOM/x, ROOM/x."""
    if name in FRONT:
        return FRONT_ROOM
    return name.removeprefix("moat/").removeprefix("lab/").split("/")[0]


def check_existence(root: pathlib.Path, rooms: dict[str, Room]) -> list[str]:
    """Compares the column `today` with the folders."""
    problems = []
    for name, room in rooms.items():
        exists = any((root / folder / name).is_dir() for folder in FOLDERS)
        if exists != room.exists:
            problems.append(f"docs/architecture.md: {name} is "
                            f"{'there' if exists else 'missing'}; correct its column `today`")
    return problems


def check_include(rooms, path, room: str, bracket: str, name: str) -> str | None:
    """Return: what is wrong, or None."""
    if bracket == '"' and ("/" in name or name in FRONT):
        wanted = included_room(name)
        if ".." in name:
            return f'{name} is neither "moat/...", "lab/...", "ROOM/..." nor beside this file'
        if wanted not in rooms:
            return f"{name} is in no room"
        if wanted not in reachable(rooms, room):
            return f"{room} may not include {wanted} ({name})"
        if "/detail/" in name and wanted != room:
            return f"only {wanted} may include {name}"
        if path.parts[0] == "include" and not name.startswith("moat/"):
            return f"{name} is not installed, but this header is"
    elif name.endswith(".h") and not rooms[room].operating_system:
        if not COMPILER_HEADERS.search(name):
            return f"<{name}> belongs to the operating system, which {room} may not include"
    return None


def resolve(path: pathlib.PurePath, name: str) -> pathlib.PurePath:
    """The file that `path` includes as "name": moat/x, lab/x, ROOM/x, or x beside it."""
    if name.startswith("moat/"):
        return pathlib.PurePath("include") / name
    if name.startswith("lab/"):
        return pathlib.PurePath(name)
    return pathlib.PurePath("src") / name if "/" in name else path.parent / name


def include_cycles(includes: dict[pathlib.PurePath, list[tuple[int, pathlib.PurePath]]]) -> list[str]:
    """A header that includes itself through others, its parent for one, has no order of its own."""
    problems = []
    done = set()

    def visit(path: pathlib.PurePath, above: tuple[pathlib.PurePath, ...]) -> None:
        done.add(path)
        for number, below in includes.get(path, []):
            if below in (*above, path):
                cycle = [*above, path][[*above, path].index(below):]
                problems.append(f"{path}:{number}: an include cycle: "
                                + " -> ".join(each.name for each in [*cycle, below]))
            elif below not in done:
                visit(below, (*above, path))

    for path in includes:
        if path not in done:
            visit(path, ())
    return problems


def unused_permissions(rooms: dict[str, Room], used: set[tuple[str, str]]) -> list[str]:
    return [f"docs/architecture.md: {name} includes nothing of {below}; remove {below} from its row"
            for name, room in rooms.items() if room.exists
            for below in sorted(room.may_include) if (name, below) not in used]


def main() -> int:
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    rooms = read_table((root / "docs/architecture.md").read_text())
    problems = check_existence(root, rooms)
    used = set()
    includes: dict[pathlib.PurePath, list[tuple[int, pathlib.PurePath]]] = {}
    files = [path for folder in ("include", "src", "lab")
             for path in sorted((root / folder).rglob("*"))
             if path.suffix in (".hpp", ".cpp", ".h", ".c")]
    for path in files:
        relative = path.relative_to(root)
        room = room_of(relative)
        if room not in rooms:
            problems.append(f"{relative}:1: the file is in no room of docs/architecture.md")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            include = INCLUDE.match(line)
            if not include:
                continue
            used.add((room, included_room(include[2])))
            if include[1] == '"':
                includes.setdefault(relative, []).append((number, resolve(relative, include[2])))
            wrong = check_include(rooms, relative, room, include[1], include[2])
            if wrong:
                problems.append(f"{relative}:{number}: {wrong}")
    problems += include_cycles(includes)
    problems += unused_permissions(rooms, used)
    print("\n".join(problems) if problems else f"{len(files)} files, {len(rooms)} rooms")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
