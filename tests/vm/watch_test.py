#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""watch_test.py KERNEL MOAT NVME_SHORT: lets QEMU's edu stray, driven by a module with one bug per command, and
checks what `moat watch` reports of each; then watches drivers under load. One boot. Exit status 77 where
a probe of scripts/vm/probe.py fails, with its name."""
import json
import re
import sys

import guest_run
from guest_run import Failed

EDU = "0000:00:04.0"
OVERFLOW = "dma-buffer-overflow"
AFTER_UNMAP = "dma-use-after-unmap"
# The module's commands, and for each the kinds that its fault may have; none: there is no fault.
COMMANDS = {
    "reused_overrun": [OVERFLOW],
    "map_page_overrun": [OVERFLOW],
    "map_page_underrun": ["dma-buffer-underflow"],
    "map_single_overrun": [OVERFLOW],
    "late_overrun": [OVERFLOW, AFTER_UNMAP],
    "list_overrun": [OVERFLOW],
    "list_underrun": ["dma-buffer-underflow"],
    "coherent_overrun": [OVERFLOW],
    "coherent_underrun": ["dma-buffer-underflow"],
    "use_after_unmap": [AFTER_UNMAP],
    "write_to_read_only": ["dma-permission"],
    "never_mapped": ["dma-never-mapped"],
    "neighbour_overrun": [],  # the next page is mapped: no IOMMU refuses that
    "correct": [],
}
# Kernels without dma:* events: pages are known there, and no directions.
PAGES_ONLY = {"old"}
# Mappings that each driver makes at least in that time, on a busy machine.
LOADED = {"nvme": 10, "xhci_hcd": 10, "ahci": 10, "e1000e": 10}
# A watch beside each command: its start and end take longer than the kernel wants between faults, of
# which it logs about three in five seconds.
JOB = guest_run.LOAD + """
begin_watch() { # FILE OPTION...
    file=$1; shift
    moat watch --json "$@" >$file.json 2>$file.err &
    watch=$!
    until grep -q 'watching;' $file.err || ! kill -0 $watch 2>/dev/null; do sleep 0.1; done
}
end_watch() {
    kill $watch
    wait $watch
    echo $? >$file.status
}
insmod /bin/edu_dma.ko || exit
for command in COMMANDS; do
    begin_watch $command --stacks
    echo $command >/sys/kernel/debug/edu_dma || exit
    cat /sys/kernel/debug/edu_dma >$command.did
    sleep 0.2
    end_watch
done
begin_watch nvme --stacks --device nvme
vm_nvme_short || exit
sleep 0.2
end_watch
begin_watch load
put_load SECONDS
end_watch
begin_watch list --device nvme --record list.rec
dd if=/dev/nvme0n1 of=/dev/null bs=128k count=8 iflag=direct 2>/dev/null
end_watch
grep -c dma_iova_link list.rec >list.links
begin_watch loss --buffer 64K
echo cost >/sys/kernel/debug/edu_dma
end_watch
ls /sys/kernel/tracing/instances >left.instances
cat /sys/kernel/tracing/dynamic_events >left.probes
"""
# Commands whose transfer begins in the page that is refused.
INSIDE_OR_BEFORE = ["map_page_underrun", "list_underrun", "coherent_underrun", "use_after_unmap", "write_to_read_only",
                    "never_mapped"]
DID = re.compile(r"mapping (0x\w+) size (\d+) write (0x\w+) size 64")


def test(name, *programs):
    job = JOB.replace("COMMANDS", " ".join(COMMANDS)).replace("SECONDS", str(guest_run.LOAD_SECONDS))
    files = guest_run.run(name, programs, job, 270 + guest_run.LOAD_SECONDS)
    failures = []
    checks = [*(lambda c=command: check_command(files, c, name in PAGES_ONLY) for command in COMMANDS),
              lambda: check_nvme(files), lambda: check_load(files, name in PAGES_ONLY),
              lambda: check_list(files, name not in PAGES_ONLY, name == "new"), lambda: check_loss(files),
              lambda: check_left(files)]
    for check in checks:
        try:
            check()
        except (Failed, KeyError, StopIteration) as why:
            failures.append(f"{type(why).__name__}: {why}")
    if failures:
        raise Failed("\n".join(failures))


def expect(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: {found!r} instead of {wanted!r}")


def watched(files, name):
    """The faults that a watch reported, and its summary."""
    lines = [json.loads(line) for line in files[f"{name}.json"]]
    expect([line["schema"] for line in lines], ["moat.fault/1"] * (len(lines) - 1) + ["moat.watch/1"], name)
    return lines[:-1], lines[-1]


def check_command(files, command, pages_only):
    kinds = COMMANDS[command]
    faults, summary = watched(files, command)
    for count in ("faults_not_logged", "events_lost", "overlaps"):
        expect(summary[count], 0, f"{command}: {count}")
    expect(files[f"{command}.status"], ["1" if kinds else "0"], f"{command}: exit status")
    expect(len(faults), 1 if kinds else 0, f"{command}: faults")
    edu = next(device for device in summary["devices"] if device["device"] == EDU)
    expect((edu["driver"], edu["live"]), ("edu_dma", 0), f"{command}: {EDU}")
    if pages_only:
        kinds = kinds + ["dma-mapped-refused"]
    if command == "neighbour_overrun":
        expect(files[f"{command}.did"], ["gap 0 neighbour changed"], command)
    for fault in faults:
        if fault["kind"] not in kinds:
            raise Failed(f"{command}: {fault['kind']} is not of {kinds}")
        check_fault(fault, command, files[f"{command}.did"][0], pages_only)


def check_fault(fault, command, did, pages_only):
    expect((fault["address_of_device"], fault["device"], fault["access"]), (EDU, "edu_dma", "write"), command)
    start, size, write = (int(number, 0) for number in DID.fullmatch(did).groups())
    # An underrun begins outside; an overrun ends there.
    outside = write if command in INSIDE_OR_BEFORE else write + 63
    expect(int(fault["address"], 0), outside & ~0xfff, f"{command}: the page")
    if command == "never_mapped":
        expect((fault["mapping"], fault["past"]), (None, None), command)
        return
    mapping = fault["past"] if fault["kind"] == AFTER_UNMAP else fault["mapping"]
    found = int(mapping["start"], 0)
    if pages_only and command == "list_underrun":  # a list is one allocation
        expect(found, start & ~0xfff, f"{command}: the mapping")
    elif pages_only:
        expect((found + mapping["bytes"], found <= start), (start + size + 0xfff & ~0xfff, True),
               f"{command}: the mapping")
    else:
        expect((found, mapping["bytes"]), (start, size), f"{command}: the mapping")
    if command == "reused_overrun":
        expect(int(fault["past"]["start"], 0), start + size, f"{command}: the past mapping")
    functions = [frame["function"].split("+")[0] for frame in mapping["mapped"]["stack"]]
    if f"edu_{command}" not in functions:
        raise Failed(f"{command}: edu_{command} is not on the stack {functions}")


def check_nvme(files):
    """The controller writes to address 0, under the kernel's own driver."""
    faults, _ = watched(files, "nvme")
    expect([(fault["address_of_device"], fault["device"], fault["access"], fault["address"])
            for fault in faults], [("0000:00:05.0", "nvme", "write", "0x0")], "nvme: faults")
    last = faults[0]["last_mapped"]
    functions = [frame["function"] for frame in last["mapped"]["stack"]]
    if last["bytes"] not in (512, 4096) or not any(name.startswith("nvme_") for name in functions):
        raise Failed(f"nvme: not the command's buffer: {last}")


def check_load(files, by_kprobes):
    faults, summary = watched(files, "load")
    expect((files["load.status"], faults), (["0"], []), "load: exit status and faults")
    for count in ("faults", "faults_not_logged", "overlaps"):
        expect(summary[count], 0, f"load: {count}")
    if not by_kprobes:  # the kernel skips some of those that return on two processors at once
        expect(summary["events_lost"], 0, "load: events_lost")
    guest_run.check_load(files)
    for driver, least in LOADED.items():
        maps = sum(device["maps"] for device in summary["devices"] if device["driver"] == driver)
        expect(maps >= least, True, f"load: {driver} mapped {maps} times")


def check_list(files, has_events, has_links):
    """Reads of many pages end all that they mapped. Kernels with the IOVA API link them by it."""
    faults, summary = watched(files, "list")
    nvme = next(device for device in summary["devices"] if device["driver"] == "nvme")
    live = nvme["live"] if has_events else 0  # kernels without events free later, by the flush queue
    expect((faults, live, nvme["unknown_unmaps"]), ([], 0, 0), "list: nvme")
    expect((nvme["maps"] > 0, files["list.links"] != ["0"]), (True, has_links), "list: mappings, links")


def check_loss(files):
    """More events than the buffer holds: said, and nothing claimed."""
    faults, summary = watched(files, "loss")
    expect((files["loss.status"], faults, summary["overlaps"]), (["0"], [], 0), "loss")
    if summary["events_lost"] == 0:
        raise Failed("loss: no event was lost in a buffer of 64 KiB")


def check_left(files):
    for what in ("left.instances", "left.probes"):
        expect(files.get(what, []), [], what)


sys.exit(guest_run.main(sys.argv[1], lambda: test(*sys.argv[1:4])))
