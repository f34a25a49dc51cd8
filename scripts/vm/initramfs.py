# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The root of the virtual machine: a static busybox, the kernel's modules, the programs to run with
the shared libraries that they name, and the job. Packed as the kernel takes it."""

import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess

BEGIN = "moat-vm: the job begins"
END = "moat-vm: the job ended with status"

INIT = """#!/bin/sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
for module in {modules}; do insmod /modules/$module.ko || echo "moat-vm: $module is not inserted"; done
export HOME=/tmp PATH=/bin LD_LIBRARY_PATH=/lib
echo "{begin}"
cd /tmp
( {job} ) 2>&1
status=$?
echo "{end} $status"
sync
poweroff -f
"""


def write(file, modules, programs, job):
    """file: the initramfs to make; modules: files to insert, in order; programs: files, found in /bin
    of the machine by their names; job: the words of a command."""
    root = file.parent / "root"
    for folder in ("bin", "proc", "sys", "dev", "tmp", "modules"):
        (root / folder).mkdir(parents=True)
    place("/bin/busybox", root / "bin/busybox")
    os.symlink("busybox", root / "bin/sh")
    for program in programs:
        place(program, root / "bin" / program.name)
        for library in shared_libraries(program):
            place(library, root / inside(library))
    for module in modules:
        place(module, root / "modules" / module.name)
    init = root / "init"
    init.write_text(INIT.format(
        modules=" ".join(module.stem for module in modules), begin=BEGIN, end=END, job=shlex.join(job)))
    init.chmod(0o755)
    pack(root, file)
    shutil.rmtree(root)


def shared_libraries(program):
    """Those that the loader would take, the loader itself among them; none of a static program."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            yield pathlib.Path(found.group(1))


def inside(library):
    """Where a library lies in the machine: a folder of a build's may be hidden there, by /tmp. The
    loader lies where programs name it."""
    return str(library).lstrip("/") if library.name.startswith("ld-") else f"lib/{library.name}"


def place(source, target):
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def pack(root, file):
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=root, input=names.encode(),
        stdout=subprocess.PIPE, check=True).stdout
    with gzip.open(file, "wb", compresslevel=1) as out:
        out.write(archive)
