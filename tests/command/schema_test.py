#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""docs/report_schema.md against the commands' output with --json, in both directions.

Usage: schema_test.py MOAT, in the project's folder. Every subcommand runs; every field it prints must be in
the tables with its type, and every field of the tables must be printed, but for those of UNSEEN.
"""
import json
import pathlib
import re
import sys
import tempfile

import command

# Needs a device of this host, a kernel that may crash, a caller of the library, tracefs, or a faulty program.
UNSEEN = {"moat.driver_error/1", "range", "moat.stress_refused/1", "kernel", "stalled", "failure",
          "moat.watch/1", "moat.mistake/1"}
# Fields that stay null in every run here.
UNFILLED = {("moat.fault/1", "pasid"), ("moat.fault/1", "next"),
            ("moat.fault/1", "notes"), ("moat.fault/1", "last_mapped"), ("moat.recording/1", "damage"),
            *(("moat.stress/1", field) for field in ("device", "kernel", "error", "stalled"))}
RECORDING = "tests/watch/data/overrun.rec"
SIMPLE = {"text": str, "number": (int, float), "boolean": bool}


class Schema:
    """Tables by their heading: fields with (type, whether the line may lack it)."""

    def __init__(self, text: str):
        self.tables: dict[str, dict[str, tuple[str, bool]]] = {}
        name = ""
        for line in text.splitlines():
            if heading := re.match(r"#{2,3} `([^`]+)`", line):
                name = heading[1]
                self.tables[name] = {}
            elif name and (row := re.match(r"\| (`.*?) \| ([a-z ]+) \|(.*)\|$", line)):
                for field in re.findall(r"`([^`]+)`", row[1]):
                    self.tables[name][field] = (row[2], row[3].strip().startswith("sometimes"))
        self.seen: set[tuple[str, str]] = set()

    def problems(self, value, kind: str, where: str) -> list[str]:
        """The parts of a value that do not match its type."""
        if kind.endswith(" or null"):
            return [] if value is None else self.problems(value, kind.removesuffix(" or null"), where)
        if kind.startswith("list of "):
            if not isinstance(value, list):
                return [f"{where} is no list"]
            return [each for item in value
                    for each in self.problems(item, kind.removeprefix("list of "), where)]
        if kind == "hex":
            is_hex = isinstance(value, str) and re.fullmatch("0x[0-9a-f]+", value)
            return [] if is_hex else [f"{where} is no hex: {value}"]
        if kind in SIMPLE:
            right = isinstance(value, SIMPLE[kind]) and (kind == "boolean") == isinstance(value, bool)
            return [] if right else [f"{where} is no {kind}: {value}"]
        if kind not in self.tables:
            return [f"{where}: {kind} has no table"]
        return self.object_problems(value, kind, where)

    def object_problems(self, value: dict, name: str, where: str) -> list[str]:
        table = self.tables[name]
        wrong = [f"{where}.{field} is not documented" for field in value.keys() - table.keys() -
                 {"schema"}]
        for field, (kind, may_lack) in table.items():
            if field in value:
                wrong += self.problems(value[field], kind, f"{where}.{field}")
                if value[field] is not None and value[field] != []:
                    self.seen.add((name, field))
            elif not may_lack:
                wrong.append(f"{where} lacks {field}")
        return wrong

    def line(self, line: str, where: str) -> list[str]:
        try:
            value = json.loads(line)
        except ValueError:
            return [f"{where}: no JSON: {line[:100]}"]
        name = value.get("schema")
        if name not in self.tables:
            return [f"{where}: its schema is {name}"]
        return self.object_problems(value, name, name)


def self_check(schema: Schema, line: str) -> list[str]:
    """A field too many, one too few, and one of another type must be noticed."""
    value = json.loads(line)
    wrong = []
    for what, other in (("too many", {**value, "colour": "blue"}),
                        ("too few", {key: value[key] for key in value if key != "bytes"}),
                        ("of another type", {**value, "bytes": "many"}),
                        ("null", {**value, "kind": None})):
        if not schema.line(json.dumps(other), ""):
            wrong.append(f"not noticed: a field {what}")
    return wrong


def main() -> int:
    moat = sys.argv[1]
    data = pathlib.Path("tests/fault/data")
    schema = Schema(pathlib.Path("docs/report_schema.md").read_text())
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sheet = str(pathlib.Path(folder) / "sheet.json")
        sysfs = ["--sysfs", str(command.make_sysfs(pathlib.Path(folder) / "sys"))]
        guard = command.make_guard(pathlib.Path(folder) / "guard")
        replay = str(pathlib.Path(folder) / "replay")
        shard = pathlib.Path(folder) / "shard"
        recorded = str(pathlib.Path(folder) / "recorded")
        command.run(moat, "audit", "--device", "nvme", "--inject", "short-transfer", "--operations",
                    "20", "--record", recorded)
        command.run(moat, "explore", "pud-slot", "--variant", "old", "--write-replay", replay)
        shard.write_text(command.run(moat, "explore", "pud-slot", "--json").stdout)
        runs = [
            ["audit", "--list"],
            ["audit", "--operations", "20"],
            ["audit", "--device", "nvme", "--inject", "overrun", "--operations", "20"],
            ["audit", "--device", "nvme", "--inject", "late", "--operations", "20"],
            ["audit", "--device", "nvme", "--inject", "wrong-data"],
            ["audit", "--device", "nvme", "--sheet", sheet],
            ["audit", "--machine", "qemu", "--device", "nvme", "--inject", "overrun", "--case", "80"],
            ["bind", "00:04.0", *sysfs], ["devices", *sysfs], ["unbind", "00:04.0", *sysfs],
            *(["explain", str(data / name)] for name in (
                "explain/traced.log", "golden_lines.txt", "pasted_lines.txt", "intel-6.12.117-iommufd.txt",
                "virtio-iommu-6.12.117.txt")),
            ["guard", "status", *guard], ["guard", "on", *guard], ["guard", "off", *guard],
            ["explore", "pud-slot"], ["explore", "pud-slot", "--variant", "old"],
            ["explore", "--replay", replay], ["explore", "--merge", str(shard)],
            ["replay", RECORDING], ["replay", recorded],
            ["replay", RECORDING, "--guard", "4k", "--placement", "right"],
            ["replay", RECORDING, "--reduce", "/dev/null"],
            ["stress", "bar-walk", "--bar", "1G", "--time", "0.1"],
        ]
        for words in runs:
            done = command.run(moat, *words, "--json")
            if not done.stdout:
                wrong.append(f"moat {' '.join(words)} --json prints nothing: {done.stderr}")
            for line in done.stdout.splitlines():
                wrong += [f"moat {' '.join(words)}: {each}" for each in schema.line(line, "line")]
        findings = pathlib.Path(folder) / "findings"
        command.run(moat, "run", "--json", str(findings), "--inject", "underrun", "--", "qemu-img", "info",
                    "nvme://0000:05:00.0/1")
        for line in findings.read_text().splitlines() or ["moat run found nothing"]:
            wrong += [f"moat run: {each}" for each in schema.line(line, "line")]
        with command.serving(moat, pathlib.Path(folder) / "nvme") as machine:
            listed = command.run(moat, "audit", "--machine", machine, "--list", "--json").stdout
            wrong += [f"moat audit --list: {each}" for each in schema.line(listed, "line")]
    for golden in sorted((data / "reports").glob("*.json")):
        wrong += schema.line(golden.read_text(), golden.name)
    names = {words[0] for words in runs} | {"run", "serve", "watch"}  # not as the others
    if unrun := set(command.commands_of(moat)) - names:
        wrong.append(f"commands that were not run: {unrun}")
    for name, table in schema.tables.items():
        for field in table:
            if name not in UNSEEN and (name, field) not in schema.seen | UNFILLED:
                wrong.append(f"{name}: nothing prints {field}")
    wrong += self_check(schema, (data / "reports/overflow.json").read_text())
    print("\n".join(dict.fromkeys(wrong)) if wrong else f"{len(schema.tables)} tables")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
