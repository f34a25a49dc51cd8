#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""newer_qemu_img_test.py MOAT: `moat run` finds the fault of QEMU 11.1's nvme:// driver (docs/findings.md), and
nothing else in it; in other versions nothing. Exit status 77 where a probe fails, with its name."""
import json
import pathlib
import subprocess
import sys
import tempfile

import guest_run
from guest_run import Failed
import newer_qemu


def findings(moat, program, file):
    """Of the driver looking at a disk; it waits forever for a completion that goes elsewhere."""
    done = subprocess.run(
        [moat, "run", "--json", file, "--", "timeout", "20", *program, "info", "nvme://0000:05:00.0/1"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    if "disk size" not in done.stdout and not file.exists():
        raise Failed(f"exit status {done.returncode}, and nothing found")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def describe(finding):
    if finding["schema"] == "moat.mistake/1":
        return finding["kind"]
    return f'{finding["access"]} of {finding["bytes"]} bytes at {finding["address"]}'


def test(moat):
    program = newer_qemu.words("qemu-img")
    version = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        found = [describe(each) for each in findings(moat, program, pathlib.Path(folder) / "findings")]
    known = ["enabled-before-queues", "write of 16 bytes at 0x0"] if " 11.1." in version else []
    if found != known:
        raise Failed(f"found in {version.splitlines()[0]}: {found}; expected: {known}")


if __name__ == "__main__":
    sys.exit(guest_run.main("drivers", lambda: test(sys.argv[1]), ["qemu-new"]))
