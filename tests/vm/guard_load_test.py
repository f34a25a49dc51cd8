#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_load_test.py KERNEL MOAT: disks of NVMe, USB and SATA and a network card under load with guards of two
sizes, of all devices and of two. The data come back equal, and the allocator's trace (iova_trace.py) has no fault.
Exit status 77 where a probe of scripts/vm/probe.py fails, with its name, and for old and new outside of --full."""
import json
import os
import pathlib
import re
import sys
import tempfile

import guest_run
import iova_trace
import kernel
from guest_run import Failed, ROOT

# KiB of the guards, and the devices that have them.
PHASES = {"all_4": (4, ""), "all_1024": (1024, ""), "two_4": (4, "--device nvme --device e1000e"),
          "two_1024": (1024, "--device nvme --device e1000e")}
DRIVERS = ("nvme", "xhci_hcd", "ahci", "e1000e")
LEAST = 10
# The trace leaves by way of a disk: the console is slow.
JOB = guest_run.LOAD + """
tracing=/sys/kernel/tracing
phase() { # NAME KIB OPTION...
    name=$1 kib=$2; shift 2
    moat guard on --module /bin/moat_guard.ko --size ${kib}K "$@" >/tmp/on || exit
    [ $name != all_4 ] || begin_trace
    echo "$name $((kib / 4))" >$tracing/trace_marker
    put_load SECONDS
    echo end >$tracing/trace_marker
    moat guard status --json >$name.json || exit
}
begin_trace() {
    sysctl -qw debug.kprobes-optimization=0
    echo counter >$tracing/trace_clock && echo 32768 >$tracing/buffer_size_kb || exit
    echo "$probes" | while read -r probe; do echo "$probe" >>$tracing/dynamic_events || exit; done || exit
    echo 1 >$tracing/events/moat/enable || exit
}
probes='PROBES'
PHASES
echo 0 >$tracing/events/moat/enable
cat $tracing/kprobe_profile >probes.txt
grep -h '^\\(overrun\\|dropped events\\)' $tracing/per_cpu/cpu*/stats >lost.txt
cat $tracing/trace >trace && dd if=trace of=/dev/nvme0n1 bs=1M conv=fsync 2>/dev/null && wc -c <trace >trace.bytes
"""


def job(name):
    config = (kernel.find(name).headers / "include/config/auto.conf").read_text()
    phases = "\n".join(f"phase {each} {kib} {words}" for each, (kib, words) in PHASES.items())
    seconds = max(1, guest_run.LOAD_SECONDS // len(PHASES))
    return (JOB.replace("PROBES", iova_trace.probes(config)).replace("PHASES", phases)
            .replace("SECONDS", str(seconds)))


def expect(condition, what):
    if not condition:
        raise Failed(what)


def missed_frees(files):
    """Those that the kernel did not trace. A range then seems to live until another one takes its place."""
    _, hits, missed = next(line.split() for line in files["probes.txt"] if line.startswith("freed"))
    expect(int(missed) * 20 <= int(hits), f"of {hits} frees {missed} were not traced")
    return int(missed)


def check_phase(files, name, phase):
    devices = json.loads(files[f"{name}.json"][0])["devices"]
    guarded = [each for each in devices if each["guarded"]]
    for each in guarded:
        expect(each["over_budget"] == 0 and each["plain"] == 0, f"{name}: not all are padded: {each}")
    loaded = DRIVERS if name.startswith("all") else ("nvme", "e1000e")
    for driver in loaded:
        padded = sum(each["padded"] for each in guarded if each["driver"] == driver)
        expect(padded >= LEAST, f"{name}: {driver} has {padded} guarded mappings")
    busy = [count for count in phase.padded.values() if count >= LEAST]
    expect(len(busy) >= len(loaded), f"{name}: padded {phase.padded}")
    expect(not phase.padded.keys() & phase.plain.keys(), f"{name}: padded and plain in one space: {phase}")
    if name.startswith("two"):
        expect(len(phase.padded) == 2 and phase.plain, f"{name}: {phase}")
    else:
        expect(not phase.plain, f"{name}: plain {phase.plain}")
    print(f"{name}: padded {sum(phase.padded.values())}, plain {sum(phase.plain.values())}, freed {phase.freed}")


def test(name, moat):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        folder = pathlib.Path(folder)
        module = guest_run.build(name, ROOT / "kernel/moat_guard", folder)
        files = guest_run.run(name, [module, moat], job(name), 200 + guest_run.LOAD_SECONDS,
                              ["--single-thread", "--disks", str(folder)])
        with open(folder / "nvme.img", "rb") as disk:
            lines = disk.read(int(files["trace.bytes"][0])).decode().splitlines()
    guest_run.check_load(files, len(PHASES))
    expect(all(re.fullmatch(r"[a-z ]+: 0", line) for line in files["lost.txt"]), f"lost: {files['lost.txt']}")
    checker = iova_trace.Checker()
    for line in lines:
        checker.read(line)
    missed = missed_frees(files)
    print(f"{len(lines)} lines of trace; not traced: {missed} frees")
    expect(not checker.faults, "; ".join(checker.faults[:5]))
    expect(len(checker.overlaps) <= missed, "; ".join(checker.overlaps[:5]))
    for each in PHASES:
        check_phase(files, each, checker.phases[each])


sys.exit(guest_run.main(sys.argv[1], lambda: test(*sys.argv[1:3])))
