#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The files of --trace follow the Trace Event Format, and describe the run.

Usage: trace_test.py MOAT
"""
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

REQUIRED = {"M": {"name", "args"}, "X": {"ts", "dur"}, "b": {"ts", "id", "cat"},
            "e": {"ts", "id", "cat"}, "i": {"ts", "s"}, "s": {"ts", "id"}, "f": {"ts", "id", "bp"}}


def problems(trace: dict) -> list[str]:
    """The violations of the format's rules in a trace."""
    wrong = []
    last, rows, open_mappings, ends = 0.0, {}, {}, {}
    for number, event in enumerate(trace["traceEvents"]):
        phase = event.get("ph")
        missing = (REQUIRED.get(phase, {"a known ph"}) | {"name", "pid", "tid"}) - event.keys()
        if missing:
            wrong.append(f"event {number} ({phase}) has no {missing}")
            continue
        row = (event["pid"], event["tid"])
        if phase == "M":
            rows[row] = event["args"]["name"]
            continue
        if row not in rows:
            wrong.append(f"event {number} is in the row {row}, which has no name")
        if event["ts"] < last:
            wrong.append(f"event {number} comes after a later one")
        last = event["ts"]
        if phase == "b":
            if event["id"] in open_mappings:
                wrong.append(f"{event['id']} begins twice")
            open_mappings[event["id"]] = event["name"]
            if not {"iova", "bytes", "label"} <= event["args"].keys():
                wrong.append(f"event {number} does not say what was mapped")
        elif phase == "e" and open_mappings.pop(event["id"], None) != event["name"]:
            wrong.append(f"{event['id']} ends and did not begin")
        elif phase == "X":
            if event["ts"] < ends.get(row, 0):
                wrong.append(f"event {number} begins before the one before it in its row ended")
            ends[row] = event["ts"] + event["dur"]
    wrong += [f"{each} begins and does not end" for each in open_mappings]
    return wrong


# Of NVMe and edu.
OPERATIONS = {"identify", "health log", "read", "write", "flush", "read by SGL", "write by SGL"}


def of(trace: dict, phase: str) -> list[dict]:
    return [event for event in trace["traceEvents"] if event["ph"] == phase]


def audit_problems(trace: dict, devices: int, cases: int, faults: bool) -> list[str]:
    wrong = problems(trace)
    if len([each for each in of(trace, "M") if each["name"] == "process_name"]) != devices:
        wrong.append(f"not {devices} devices")
    operations = [each for each in of(trace, "X") if each["cat"] == "operation"]
    if len(operations) != devices * cases:
        wrong.append(f"{len(operations)} operations, not {devices * cases}")
    if unknown := {each["name"] for each in operations} - OPERATIONS:
        wrong.append(f"operations of these names: {unknown}")
    if len(of(trace, "b")) < len(operations):
        wrong.append("fewer mappings than operations")
    seen = [each for each in of(trace, "i") if each["args"]["iova"].startswith("0x")]
    if bool(seen) != faults:
        wrong.append(f"{len(seen)} faults")
    return wrong


def recording_problems(trace: dict) -> list[str]:
    """Of the recording of two drivers: edu_dma mapped twice and strayed twice; nvme read."""
    wrong = problems(trace)
    processes = [each["args"]["name"] for each in of(trace, "M") if each["name"] == "process_name"]
    if processes != ["0000:00:04.0", "0000:00:05.0"]:
        wrong.append(f"processes {processes}")
    if [each["pid"] for each in of(trace, "i")] != [1, 1]:
        wrong.append(f"faults {of(trace, 'i')}")
    mapped = [each["args"]["label"] for each in of(trace, "b") if each["pid"] == 1]
    if mapped != ["edu_dma: dma_map_page"] * 2:
        wrong.append(f"mappings {mapped}")
    return wrong


def schedule_problems(trace: dict) -> list[str]:
    wrong = problems(trace)
    rows = {each["args"]["name"] for each in of(trace, "M") if each["name"] == "thread_name"}
    if rows != {"walker", "faulter"}:
        wrong.append(f"rows {rows}")
    if [each["args"]["step"] for each in of(trace, "X")] != list(range(12)):
        wrong.append("not the twelve steps of the race")
    if len(of(trace, "s")) != 1 or len(of(trace, "f")) != 1 or len(of(trace, "i")) != 1:
        wrong.append("the stale read or the violation is not marked")
    return wrong


def damaged(trace: dict):
    """Traces that are wrong, each in one way."""
    events = trace["traceEvents"]
    ended = next(at for at, event in enumerate(events) if event["ph"] == "e")
    begun = next(at for at, event in enumerate(events) if event["ph"] == "b")
    yield "a mapping without an end", events[:ended] + events[ended + 1:]
    yield "a mapping without a beginning", events[:begun] + events[begun + 1:]
    yield "out of order", events[:begun] + [dict(events[begun], ts=1e12)] + events[begun + 1:]
    yield "a row without a name", [event for event in events if event["ph"] != "M"]
    nameless = copy.deepcopy(events[begun])
    del nameless["args"]["label"]
    yield "a mapping without a label", events[:begun] + [nameless] + events[begun + 1:]


def main() -> int:
    moat = sys.argv[1]
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "trace.json"

        def traced(status: int, *words: str) -> dict:
            done = subprocess.run([moat, *words, "--trace", str(file)], capture_output=True,
                                  text=True, timeout=60, check=False)
            if done.returncode != status:
                wrong.append(f"moat {' '.join(words)}: exit status {done.returncode}\n{done.stderr}")
            return json.loads(file.read_text())

        clean = traced(0, "audit", "--device", "nvme", "--device", "edu", "--operations", "20")
        wrong += audit_problems(clean, devices=2, cases=20, faults=False)
        overrun = traced(1, "audit", "--device", "nvme", "--inject", "overrun", "--case", "8")
        wrong += audit_problems(overrun, devices=1, cases=1, faults=True)
        race = traced(1, "explore", "pud-slot", "--variant", "old")
        wrong += schedule_problems(race)
        wrong += recording_problems(traced(1, "replay", "tests/watch/data/edu_strays.rec"))
        for what, events in damaged(clean):
            if not problems({"traceEvents": events}):
                wrong.append(f"not noticed: {what}")
        done = subprocess.run([moat, "audit", "--device", "edu", "--operations", "1", "--trace",
                               str(pathlib.Path(folder) / "no" / "folder")],
                              capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 3 or "no/folder: " not in done.stderr:
            wrong.append(f"a trace that cannot be written: {done.returncode} {done.stderr}")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
