#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""vm_test.py KERNEL PROGRAM: runs the guest's tests under the kernel in one boot, and then looks at
the disk that they wrote. Exit status 77, with the reason, where this kernel is not to be had."""
import pathlib
import subprocess
import sys
import tempfile

VM = pathlib.Path(__file__).resolve().parents[2] / "scripts/vm/vm.py"
UNAVAILABLE = 77
BACKENDS = {"stock": "type1", "iommufd": "iommufd"}
DISK_BYTES = 64 << 20
# What nvme_guest.cpp writes, and where.
WRITTEN_AT = 1 << 20
WRITTEN_BYTES = 12 << 10


def main():
    kernel, program = sys.argv[1:3]
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        disk = pathlib.Path(folder) / "disk.img"
        with open(disk, "wb") as file:
            file.truncate(DISK_BYTES)
        done = subprocess.run(
            [sys.executable, VM, "--kernel", kernel, "--program", program, "--disk", disk,
             "--limit", "150", "--", "env", f"MOAT_VM_BACKEND={BACKENDS[kernel]}",
             pathlib.Path(program).name],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        print(done.stdout, done.stderr, sep="\n")
        if done.returncode == UNAVAILABLE:
            print(f"vm.py: Skipped\n{done.stderr.strip().splitlines()[0]}")
        if done.returncode:
            return done.returncode
        if "[  PASSED  ]" not in done.stdout:
            print("the guest's tests did not say that they passed")
            return 1
        return check(disk)


def check(disk):
    with open(disk, "rb") as file:
        file.seek(WRITTEN_AT)
        found = file.read(WRITTEN_BYTES)
    wanted = bytes((i * 7 + i // 512) % 256 for i in range(WRITTEN_BYTES))
    if found != wanted:
        print("the disk does not hold what was written through the IOMMU")
        return 1
    return 0


sys.exit(main())
