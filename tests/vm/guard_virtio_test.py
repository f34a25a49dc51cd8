#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_virtio_test.py MOAT: moat_guard behind an IOMMU of another kind, virtio-iommu. An overrun changes a neighbour
and no fault is logged; with guards the neighbour stays intact and the device faults. Exit status 77 where a probe of
scripts/vm/probe.py fails, with its name."""
import json
import pathlib
import re
import sys
import tempfile

import guest_run
from guest_run import Failed, ROOT

JOB = """
overrun() { # NAME
    echo neighbour_overrun >/sys/kernel/debug/edu_dma && cat /sys/kernel/debug/edu_dma >$1.did || exit
    dmesg -c | grep 'page fault' >$1.log || true
}
insmod /bin/edu_dma.ko || exit
basename $(readlink /sys/class/iommu/*/devices/0000:00:04.0/iommu/device/driver) >iommu.driver
overrun unguarded
moat guard on --device edu_dma --module /bin/moat_guard.ko >/tmp/on || exit
overrun guarded
moat guard status --json >status.json || exit
moat guard off >/tmp/off && overrun off
"""
# EP 32 is device 00:04.0.
FAULT = re.compile(r".*virtio_iommu virtio0: page fault from EP 32 at 0x(\w+)")


def expect(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")


def faults(files, name):
    return [found.group(1) for found in map(FAULT.match, files.get(f"{name}.log", [])) if found]


def test(moat):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        module = guest_run.build("virtio", ROOT / "kernel/moat_guard", pathlib.Path(folder))
        files = guest_run.run("virtio", [module, moat], JOB, 150, machine="virtio")
    expect(files["iommu.driver"], ["virtio_iommu"], "driver of the IOMMU")
    for name in ("unguarded", "off"):
        expect((files[f"{name}.did"], faults(files, name)), (["gap 0 neighbour changed"], []), name)
    expect(files["guarded.did"], ["gap 4096 neighbour intact"], "guarded")
    # The overrun begins with the page of the guard.
    expect(faults(files, "guarded")[:1] and faults(files, "guarded")[0][-3:], "000", "the first fault's place")
    devices = json.loads(files["status.json"][0])["devices"]
    counted = [each["faults"] for each in devices if each["device"] == "0000:00:04.0"]
    expect(counted, [len(faults(files, "guarded"))], "faults that the status counts")


sys.exit(guest_run.main("virtio", lambda: test(sys.argv[1])))
