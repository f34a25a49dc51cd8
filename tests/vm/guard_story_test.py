#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_story_test.py KERNEL MOAT: the whole story of docs/guides/debug_a_kernel_driver.md: an overrun changes a
neighbour and nobody notices; with guards on it faults, `moat watch` names the buffer and draws the guard, and
`moat guard status` counts the fault. Exit status 77 where a probe of scripts/vm/probe.py fails, with its name."""
import json
import pathlib
import re
import sys
import tempfile

import guest_run
from guest_run import Failed, ROOT

EDU = "0000:00:04.0"
JOB = """
overrun() { echo neighbour_overrun >/sys/kernel/debug/edu_dma && cat /sys/kernel/debug/edu_dma; }
insmod /bin/edu_dma.ko || exit
overrun >unguarded.did || exit
echo never_mapped >/sys/kernel/debug/edu_dma || exit # a fault that status does not count
moat guard on --device edu_dma --module /bin/moat_guard.ko >on.txt || exit
moat guard status --json >before.json || exit
sleep 6 # the kernel logs few faults a second
moat watch --device edu_dma >watch.txt 2>watch.err & watch=$!
until grep -q 'watching;' watch.err || ! kill -0 $watch; do sleep 0.1; done
overrun >guarded.did || exit
kill -INT $watch; wait $watch
moat guard status >status.txt && moat guard status --json >after.json || exit
moat guard off >off.txt && overrun >off.did
"""
# The mapping, and the guard after it.
DRAWN = re.compile(r"0x\w+ \|.*B+g+.*\| 0x\w+")


def expect(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")


def faults(files, name):
    state = json.loads(files[name][0])
    return [each["faults"] for each in state["devices"] if each["device"] == EDU]


def test(name, moat):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        module = guest_run.build(name, ROOT / "kernel/moat_guard", pathlib.Path(folder))
        files = guest_run.run(name, [module, moat], JOB, 200)
    expect(files["unguarded.did"], ["gap 0 neighbour changed"], "without guards")
    expect(files["guarded.did"], ["gap 4096 neighbour intact"], "with guards")
    expect(files["off.did"], ["gap 0 neighbour changed"], "after guards")
    expect((faults(files, "before.json"), faults(files, "after.json")), ([0], [1]), "faults since")
    watched = "\n".join(files["watch.txt"])
    expect(files["watch.err"][-1:], ["moat watch: watching; Ctrl-C ends it"], "watch")
    for words in ("dma-buffer-overflow", "past the end of the 4096-byte mapping", "edu_dma", "g guard"):
        expect(words in watched, True, f"watch says {words!r}")
    expect(bool(DRAWN.search(watched)), True, "watch draws the guard")
    expect(any("moat_guard leaves a guard after new mappings of 1 device" in line for line in files["watch.err"]), True,
           "watch names the module")


sys.exit(guest_run.main(sys.argv[1], lambda: test(sys.argv[1], sys.argv[2])))
