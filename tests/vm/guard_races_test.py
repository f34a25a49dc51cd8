#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_races_test.py: moat_guard under the kernel's detector of data races, KCSAN. Two processors map and unmap
beside a disk that is read, while the module is set and its state printed: no report has a function of the module.
A broken copy, one of whose counters is not atomic, is reported. Exit status 77 where a probe of scripts/vm/probe.py
fails."""
import pathlib
import re
import sys
import tempfile

import guest_run
from guest_run import Failed, ROOT

BEGINS = re.compile(r"^KCSAN: ")
ENDS = re.compile(r"Reported by Kernel Concurrency Sanitizer")
# The detector delays an access in so many, to see whether another processor changes the memory.
WATCH_EACH = 200
# Code is patched while nothing runs it: processors that run at once may meet the breakpoint.
JOB = f"""
dmesg -n 1
cd /sys/kernel/debug
guard=/sys/module/moat_guard/parameters
load() {{ # reads until the file goes
    while [ -e /tmp/load ]; do
        dd if=/dev/nvme0n1 of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null || exit
        echo read
    done
}}
exercise() {{ # NAME
    insmod /bin/$1.ko size=4 || exit
    dmesg -c >/dev/null
    echo on >kcsan
    touch /tmp/load
    load >/tmp/$1.reads &
    (echo race 2 >guard_traffic && cat guard_traffic) >/tmp/$1.race &
    traffic=$!
    while kill -0 $traffic 2>/dev/null; do
        for size in 4 0 1024 8; do
            echo $size >$guard/size; echo 0000:00:04.0 >$guard/devices; echo >$guard/devices
            cat moat_guard/state
        done
    done >/tmp/state
    rm /tmp/load
    wait
    echo off >kcsan
    cp /tmp/state /tmp/$1.state
    dmesg -c | sed 's/^BUG: //' >/tmp/$1.log # the word ends a boot
    rmmod moat_guard || exit
}}
insmod /bin/edu_dma.ko && insmod /bin/guard_traffic.ko || exit
until [ -b /dev/nvme0n1 ]; do sleep 0.1; done
echo {WATCH_EACH} >/sys/module/kcsan/parameters/skip_watch || exit
exercise moat_guard
exercise broken
"""
COUNT = "\tatomic_long_inc(&domain->padded);\n"
COUNT_NOT_ATOMIC = "\t++domain->padded.counter;\n"


def reports(lines):
    """The detector's reports, each as its lines."""
    found = []
    for line in lines:
        if BEGINS.search(line):
            found.append([])
        if found and not (found[-1] and ENDS.search(found[-1][-1])):
            found[-1].append(line)
    return found


def about_module(lines):
    return [report for report in reports(lines) if any("[moat_guard]" in line for line in report)]


def test():
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        folder = pathlib.Path(folder)
        modules = [guest_run.build("races", ROOT / source, folder / source)
                   for source in ("kernel/moat_guard", "tests/guard/module")]
        broken = guest_run.build_broken("races", ROOT / "kernel/moat_guard", folder, "hooks.c", COUNT, COUNT_NOT_ATOMIC)
        files = guest_run.run("races", [*modules, broken], JOB, 900)
    for name in ("moat_guard", "broken"):
        guarded = any(re.search(r"0000:00:04\.0 .*padded=[1-9]\d{3}", line) for line in files[f"{name}.state"])
        if not guarded or "failed 0" not in files[f"{name}.race"][0] or not files[f"{name}.reads"]:
            raise Failed(f"{name}: no load: {files[f'{name}.race']}, {files[f'{name}.state'][-4:]}, "
                         f"{len(files[f'{name}.reads'])} reads")
    log = {name: files.get(f"{name}.log", []) for name in ("moat_guard", "broken")}  # none without a report
    print(f"reports of the detector: {len(reports(log['moat_guard']))}, with the broken copy "
          f"{len(reports(log['broken']))}, of which {len(about_module(log['broken']))} about it")
    found = about_module(log["moat_guard"])
    if found:
        raise Failed("the kernel reports: " + "; ".join(found[0]))
    if not about_module(log["broken"]):
        raise Failed("the counter of the broken copy, which is not atomic, is not reported")


sys.exit(guest_run.main("races", test))
