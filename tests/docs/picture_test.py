#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The picture of docs/architecture.md: its rooms and arrows are those of the table that lint reads.

Usage: picture_test.py ROOT
"""
import pathlib
import sys
import xml.etree.ElementTree as xml

SVG = "{http://www.w3.org/2000/svg}"


def differences(picture: str, table: dict) -> list[str]:
    root = xml.fromstring(picture)
    rooms = {group.get("id"): group for group in root.iter(SVG + "g")}
    arrows = {path.get("id") for path in root.iter(SVG + "path")} - {None}
    expected = {f"{name}-{below}" for name, room in table.items() for below in room.may_include}
    wrong = [f"the picture has no room {name}" for name in table.keys() - rooms.keys()]
    wrong += [f"the table has no room {name}" for name in rooms.keys() - table.keys()]
    wrong += [f"the picture has no arrow {name}" for name in expected - arrows]
    wrong += [f"the table has no arrow {name}" for name in arrows - expected]
    for name in table.keys() & rooms.keys():
        if rooms[name].find(f"{SVG}text[@class='name']").text != name:
            wrong.append(f"{name} is called otherwise in the picture")
        if (rooms[name].get("class") == "os") != table[name].operating_system:
            wrong.append(f"{name}: the picture and the table differ about the operating system")
    return wrong


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    sys.path.insert(0, str(root / "scripts/lint"))
    import layers  # pylint: disable=import-outside-toplevel
    table = layers.read_table((root / "docs/architecture.md").read_text())
    picture = (root / "docs/architecture.svg").read_text()
    wrong = differences(picture, table)
    for what, old, new in (("a room too few", 'id="iova"', 'id="iovas"'),
                           ("an arrow too few", 'id="mm-iommu"', ""),
                           ("an arrow too many", 'id="mm-iommu"', 'id="iommu-mm"'),
                           ("another name", ">iova<", ">iovas<")):
        if not differences(picture.replace(old, new), table):
            wrong.append(f"not noticed: {what}")
    print("\n".join(wrong) if wrong else "the picture is the table's")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
