#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""vm_test.py KERNEL PROGRAM MOAT: audits devices and runs the guest's tests under the kernel, in one
boot, and then looks at the disk that they wrote. Exit status 77 where a probe of scripts/vm/probe.py
fails, with its name."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

VM = pathlib.Path(__file__).resolve().parents[2] / "scripts/vm"
sys.path.insert(0, str(VM))
import probe  # noqa: E402

SKIPPED = 77
BACKENDS = {"stock": "type1", "new": "type1", "iommufd": "iommufd"}
# The data that nvme_guest.cpp writes, and its place.
WRITTEN_AT = 1 << 20
WRITTEN_BYTES = 12 << 10
# The duration of the page walk's stress. Only type1 maps its BARs.
STRESS_SECONDS = os.environ.get("MOAT_VM_STRESS_SECONDS", "8")
STRESS_STATUS = {"stock": 0, "new": 0, "iommufd": 3}
# Audits without findings, of devices by name and by address; one of a driver that passes a length
# 64 bytes too large; one of an address without a device; the page walk; the tests; and what their
# faults in the kernel's log mean.
JOB = """
moat bind 00:04.0 && moat bind 00:05.0 || exit
moat audit --machine vfio --device nvme --operations 64 || exit
moat audit --machine vfio --device 0000:00:05.0 --device 00:04.0 --operations 6 || exit
moat audit --machine vfio --device nvme --inject overrun --case 1
[ $? = 1 ] || exit 1
moat audit --machine vfio --device 00:1e.0
[ $? = 2 ] || exit 1
moat bind 00:06.0 || exit
moat stress bar-walk --machine vfio --time {seconds} --watchdog 60 --json
[ $? = {stress_status} ] || exit 1
MOAT_VM_BACKEND={backend} {guest} || exit 1
NO_COLOR=1 moat explain --here
[ $? = 1 ]
"""


def main():
    kernel, program, moat = sys.argv[1:4]
    reason = probe.reason_to_skip(kernel)
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        done = subprocess.run(
            [sys.executable, VM / "vm.py", "--kernel", kernel, "--program", program, "--program", moat,
             "--disks", folder, "--limit", str(150 + int(STRESS_SECONDS)), "--", "sh", "-c",
             JOB.format(backend=BACKENDS[kernel], guest=pathlib.Path(program).name,
                        seconds=STRESS_SECONDS, stress_status=STRESS_STATUS[kernel])],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        print(done.stdout, done.stderr, sep="\n")
        if done.returncode:
            return 1
        if "[  PASSED  ]" not in done.stdout:
            print("the guest's tests did not say that they passed")
            return 1
        return (check(pathlib.Path(folder) / "nvme.img") or check_stress(kernel, done.stdout) or
                check_explained(done.stdout))


def check(disk):
    with open(disk, "rb") as file:
        file.seek(WRITTEN_AT)
        found = file.read(WRITTEN_BYTES)
    wanted = bytes((i * 7 + i // 512) % 256 for i in range(WRITTEN_BYTES))
    if found != wanted:
        print("the disk does not hold what was written through the IOMMU")
        return 1
    return 0


def check_explained(said):
    for wanted in (r"00:0[45]\.0 \(vfio-pci\) (wrote|read) ", r"  reported by  Intel VT-d, code 0x[56]: ",
                   r"  lies in      [a-zA-Z]"):
        if not re.search(wanted, said):
            print(f"moat explain --here did not print what matches {wanted}")
            return 1
    return 0


def check_stress(kernel, said):
    if kernel == "iommufd":
        found = "emulates type1 by iommufd" in " ".join(said.split())
    else:
        line = next(line for line in said.splitlines() if '"moat.stress/1"' in line)
        result = json.loads(line[line.index("{"):])  # progress may precede it
        found = result["clean"] and result["rounds"] > 0 and result["leaves_lost"] > 0
    if not found:
        print("the stress of the page walk ended otherwise")
    return 0 if found else 1


sys.exit(main())
