#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""newer_qemu_iommu_test.py TEST_AUDIT MOAT: a newer QEMU's AMD IOMMU records that it blocks, unlike 7.2's, and does not
record where (docs/findings.md). Exit status 77 where a probe fails, with its name."""
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import guest_run
from guest_run import Failed
import newer_qemu


def run(command, environment):
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    print(done.stdout, done.stderr)
    return done


def test(test_audit, moat):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        program = pathlib.Path(folder) / "qemu-system-x86_64"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(newer_qemu.words(program.name))} "$@"\n')
        program.chmod(0o755)
        environment = os.environ | {"PATH": f'{folder}:{os.environ["PATH"]}'}
        if run([test_audit, "--gtest_filter=*IommuTest*/amd"], environment).returncode != 0:
            raise Failed("the tests of an AMD IOMMU fail")
        audit = run([moat, "audit", "--machine", "qemu", "--iommu", "amd", "--device", "edu", "--inject", "late",
                     "--case", "0-9", "--json"], environment)
    found = [json.loads(line) for line in audit.stdout.splitlines()]
    faults = {(each["class"], each["fault"]) for each in found if each.get("fault")}
    if not any(kind == "fault-without-access" for kind, _ in faults):
        raise Failed(f"findings with faults: {faults}; expected one without an address")


if __name__ == "__main__":
    sys.exit(guest_run.main("drivers", lambda: test(*sys.argv[1:]), ["qemu-new"]))
