#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_debug_test.py MOAT: moat_guard under the kernel's own checkers (scripts/vm/checkers.config): lockdep, KASAN,
DMA_API_DEBUG and those of sleeping, preemption, lists and objects. They report nothing while the module is loaded, set and
unloaded under load, and report a lock that a broken copy leaves held. MOAT_VM_RELOADS: how often it is loaded (2). Exit
status 77 where a probe of scripts/vm/probe.py fails."""
import os
import pathlib
import re
import sys
import tempfile

import guest_run
from guest_run import Failed, ROOT

RELOADS = os.environ.get("MOAT_VM_RELOADS", "2")
# Two processors that QEMU runs by turns: docs/testing.md has the reason.
OPTIONS = ("--single-thread",)
REPORT = re.compile(r"WARNING|BUG|DMA-API:.*(error|warn|leak|device driver)|ODEBUG|corruption|INFO: (?!lockdep)")
JOB = """
cd /sys/kernel/debug
guard=/sys/module/moat_guard/parameters
reports() { dmesg -c >/tmp/$1.log; }
edu() { echo $1 >edu_dma && cat edu_dma >/tmp/$1.did; }
traffic() { echo "$*" >guard_traffic || exit; cat guard_traffic; }
load() { # reads until the file goes
    rounds=0
    while [ -e /tmp/load ]; do
        dd if=/dev/nvme0n1 of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null || exit
        rounds=$((rounds + 1))
    done
    echo $rounds >/tmp/load.rounds
}
insmod /bin/edu_dma.ko && insmod /bin/guard_traffic.ko || exit
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
reports boot
moat guard on --module /bin/moat_guard.ko >/tmp/on.txt || exit
edu map_page_overrun # maps each page once: DMA_API_DEBUG rejects more
touch /tmp/load
load &
for round in $(seq RELOADS); do
    traffic hold 0
    rmmod moat_guard || exit
    traffic hold 1; traffic drop 0; traffic hold 0; traffic drop 1
    insmod /bin/moat_guard.ko size=$((round % 3 * 4)) || exit
    traffic hold 1; traffic drop 0; traffic drop 1
done >/tmp/reload.gaps
for size in 4 0 1024 8; do
    echo $size >$guard/size; echo 0000:00:04.0 >$guard/devices; traffic churn; echo >$guard/devices
    cat moat_guard/state >/dev/null
done >/tmp/settings.gaps
sysctl -qw kernel.ftrace_enabled=0; traffic hold 0 >/tmp/paused.gaps; sysctl -qw kernel.ftrace_enabled=1; traffic drop 0
rm /tmp/load
wait
echo 1 >/sys/bus/pci/devices/0000:00:05.0/remove
echo 1 >/sys/bus/pci/rescan
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
moat guard status >/tmp/status.txt && rmmod moat_guard || exit
reports guard
insmod /bin/broken.ko size=4 && cat moat_guard/state >/tmp/state.txt
reports broken
"""
UNLOCK = "\t\tshow_device(file, each);\n\tmutex_unlock(&lock);\n"


def reports(files, name):
    return [line for line in files.get(f"{name}.log", []) if REPORT.search(line)]


def test(moat):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        folder = pathlib.Path(folder)
        modules = [guest_run.build("debug", ROOT / source, folder / source)
                   for source in ("kernel/moat_guard", "tests/guard/module")]
        broken = guest_run.build_broken("debug", ROOT / "kernel/moat_guard", folder, "devices.c",
                                        UNLOCK, UNLOCK.splitlines(True)[0])
        job = JOB.replace("RELOADS", RELOADS)
        files = guest_run.run("debug", [*modules, broken, moat], job, 1500, OPTIONS)
    for name in ("boot", "guard"):
        if reports(files, name):
            raise Failed(f"{name}: the kernel reports: " + "; ".join(files[f"{name}.log"]))
    gaps = [line for name in ("reload", "settings", "paused") for line in files[f"{name}.gaps"] if "least_gap" in line]
    wrong = [line for line in gaps if "least_gap -" in line or not line.endswith("wrong 0")]
    if len(gaps) < 7 * int(RELOADS) or wrong:
        raise Failed(f"{len(gaps)} checks of live mappings, of which failed: {wrong}")
    if int(files["load.rounds"][0]) == 0:
        raise Failed("the disk was not read")
    if not any("lock held when returning to user space" in line for line in files["broken.log"]):
        raise Failed("the lock that the broken module leaves held is not reported")


sys.exit(guest_run.main("debug", lambda: test(sys.argv[1])))
