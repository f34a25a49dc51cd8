# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""For tests whose Linux guest drives moat's soft NVMe controller: the guest's jobs, a boot, and what the
console must show."""
import pathlib
import re
import tempfile

from guest_run import Failed
import boot
import initramfs
import kernel

# The whole disk of 64 MiB, in requests of many lengths.
WHOLE_DISK = """
head -c 16777216 /dev/urandom >data
for part in 0 1 2 3; do dd if=data of=/dev/nvme0n1 bs=128k seek=$((part * 128)) oflag=direct 2>/dev/null; done
echo 3 >/proc/sys/vm/drop_caches
for part in 0 1 2 3; do
    dd if=/dev/nvme0n1 bs=64k skip=$((part * 256)) count=256 iflag=direct 2>/dev/null | cmp - data && echo equal
done
grep nvme /proc/interrupts
"""
# Five pages each: the kernel places them at multiples of eight, so that nothing lies above them.
READ_FIVE_PAGES = "dd if=/dev/nvme0n1 of=/dev/null bs=20k count=32 iflag=direct"
LIMIT_S = 150


def run(name, machine, job):
    """Return: what came over the console."""
    chosen = kernel.find(name)
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        image = pathlib.Path(folder) / "initramfs.gz"
        initramfs.write(image, chosen.to_insert(machine.modules), [], ["sh", "-c", job])
        outcome = boot.boot(chosen, image, machine, pathlib.Path(folder), LIMIT_S, 512, print)
        if outcome.is_known_flake():
            print("the emulated processor hit a removed breakpoint (a known flake): once more")
            outcome = boot.boot(chosen, image, machine, pathlib.Path(folder), LIMIT_S, 512, print)
    print(*outcome.console[-40:], sep="\n")
    if outcome.why or outcome.status:
        raise Failed(f"the guest: {outcome.why or outcome.status}")
    return outcome.console


def check_whole_disk(console):
    """WHOLE_DISK read what it wrote, and its I/O queue interrupted."""
    equal = sum(line == "equal" for line in console)
    if equal != 4:
        raise Failed(f"{equal} of 4 parts of the disk were read as they were written")
    interrupts = [line for line in console if re.search(r"nvme0q1", line)]
    if not interrupts or re.search(r":\s+0\s", interrupts[0]):
        raise Failed(f"the I/O queue never interrupted: {interrupts}")
