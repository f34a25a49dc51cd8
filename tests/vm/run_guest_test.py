#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""run_guest_test.py KERNEL MOAT [--newer-qemu]: an unmodified QEMU passes `moat run`'s soft disk on to a Linux
guest, whose own driver writes and reads all of it. A right disk: equal data, no finding. One that
underruns: a finding below a buffer that the guest's driver mapped; above lie its older mappings. Two boots.
Exit status 77 where a probe fails, with its name."""
import re
import sys

import guest_run
import soft_disk
from guest_run import Failed
import machine
import newer_qemu

FINDING = re.compile(r"ERROR: moat: (dma-\S+) on IOVA 0x[0-9a-f]+ by device nvme")


def test(name, moat, qemu):
    def run(options, job):
        return soft_disk.run(name, machine.on_soft_disk([moat, "run", *options, "--"], qemu), job)

    console = run([], soft_disk.WHOLE_DISK)
    soft_disk.check_whole_disk(console)
    if "moat run: no finding" not in console:
        raise Failed("a right disk was blamed, or the summary is missing")

    console = run(["--inject", "underrun", "--after", "10"], soft_disk.READ_FIVE_PAGES)
    kinds = {found.group(1) for found in map(FINDING.search, console) if found}
    if not kinds & {"dma-buffer-underflow", "dma-use-after-unmap", "dma-permission"}:
        raise Failed(f"the underrun was not found, only {kinds or 'nothing'}")


if __name__ == "__main__":
    is_newer = "--newer-qemu" in sys.argv
    sys.exit(guest_run.main(
        sys.argv[1],
        lambda: test(*sys.argv[1:3], newer_qemu.words("qemu-system-x86_64") if is_newer else machine.SOFT_DISK.qemu),
        ["qemu-new"] if is_newer else []))
