#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""run_guest_test.py KERNEL MOAT: an unmodified QEMU passes `moat run`'s soft disk on to a Linux guest, whose
own driver writes and reads all of it. A right disk: equal data, no finding. One that underruns: a finding
below a buffer that the guest's driver mapped; above lie its older mappings. Two boots. Exit status 77 where
a probe fails, with its name."""
import pathlib
import re
import sys
import tempfile

import guest_run
from guest_run import Failed

sys.path.insert(0, str(guest_run.ROOT / "scripts/vm"))
import boot  # noqa: E402
import initramfs  # noqa: E402
import kernel  # noqa: E402
import machine  # noqa: E402

# The whole disk of 64 MiB, in requests of many lengths.
JOB = """
head -c 16777216 /dev/urandom >data
for part in 0 1 2 3; do dd if=data of=/dev/nvme0n1 bs=128k seek=$((part * 128)) oflag=direct 2>/dev/null; done
echo 3 >/proc/sys/vm/drop_caches
for part in 0 1 2 3; do
    dd if=/dev/nvme0n1 bs=64k skip=$((part * 256)) count=256 iflag=direct 2>/dev/null | cmp - data && echo equal
done
grep nvme /proc/interrupts
"""
UNDERRUN_JOB = "dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 iflag=direct"
FINDING = re.compile(r"ERROR: moat: (dma-\S+) on IOVA 0x[0-9a-f]+ by device nvme")
LIMIT_S = 150


def run(name, moat, options, job):
    """Return: what came over the console, moat's lines among it."""
    chosen = kernel.find(name)
    soft = machine.on_soft_disk([moat, "run", *options, "--"])
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        image = pathlib.Path(folder) / "initramfs.gz"
        initramfs.write(image, chosen.to_insert(soft.modules), [], ["sh", "-c", job])
        outcome = boot.boot(chosen, image, soft, pathlib.Path(folder), LIMIT_S, 512, print)
        if outcome.is_known_flake():
            print("the emulated processor hit a removed breakpoint (a known flake): once more")
            outcome = boot.boot(chosen, image, soft, pathlib.Path(folder), LIMIT_S, 512, print)
    print(*outcome.console[-40:], sep="\n")
    if outcome.why or outcome.status:
        raise Failed(f"the guest: {outcome.why or outcome.status}")
    return outcome.console


def test(name, moat):
    console = run(name, moat, [], JOB)
    equal = sum(line == "equal" for line in console)
    if equal != 4:
        raise Failed(f"{equal} of 4 parts of the disk were read as they were written")
    if "moat run: no finding" not in console:
        raise Failed("a right disk was blamed, or the summary is missing")
    interrupts = [line for line in console if re.search(r"nvme0q1", line)]
    if not interrupts or re.search(r":\s+0\s", interrupts[0]):
        raise Failed(f"the I/O queue never interrupted: {interrupts}")

    console = run(name, moat, ["--inject", "underrun", "--after", "10"], UNDERRUN_JOB)
    kinds = {found.group(1) for found in map(FINDING.search, console) if found}
    if not kinds & {"dma-buffer-underflow", "dma-use-after-unmap", "dma-permission"}:
        raise Failed(f"the underrun was not found, only {kinds or 'nothing'}")


if __name__ == "__main__":
    sys.exit(guest_run.main(sys.argv[1], lambda: test(sys.argv[1], sys.argv[2])))
