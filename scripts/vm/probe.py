#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the virtual machine needs of its host, each need with a name: the tests skip only for a probe
that fails, and say which.

    probe.py                every probe and its result; exit status 1 where one fails
    probe.py NAME...        these alone
    probe.py --excuses FILE...   whether each skip in these lists of skipped tests is excused by a
                            probe that fails here; exit status 1 where one is not"""

import pathlib
import re
import shutil
import sys

import kernel
import newer_qemu
import testpmd

# What a skipped test prints, and what is looked for in its list.
SKIPPED = re.compile(r"SKIPPED: (vm|run)/(\S+) for its probe (\S+): ")


def program(name):
    return lambda: "" if shutil.which(name) else f"{name} is not installed"


def busybox():
    return "" if pathlib.Path("/bin/busybox").exists() else "there is no /bin/busybox (busybox-static)"


def obtainable(name):
    def probe():
        try:
            kernel.find(name)
        except kernel.Unavailable as why:
            return str(why).splitlines()[0]
        return ""
    return probe


def newer_qemu_is_there():
    try:
        newer_qemu.words("qemu-img")
    except newer_qemu.Unavailable as why:
        return str(why)
    return ""


def testpmd_is_there():
    try:
        testpmd.words()
    except testpmd.Unavailable as why:
        return str(why).splitlines()[0]
    return ""


# Each says what is missing, or nothing.
PROBES = {
    "qemu": program("qemu-system-x86_64"),
    "qemu-new": newer_qemu_is_there,
    "testpmd": testpmd_is_there,
    "cpio": program("cpio"),
    "busybox": busybox,
    **{f"kernel-{name}": obtainable(name) for name in [*kernel.NAMES, *kernel.CROSS]},
    **{f"compiler-{name}": program(f"{prefix}gcc") for name, prefix in kernel.CROSS.items()},
}


# Needed by some tests beyond what their kernel needs.
FURTHER = ("qemu-new",)


def needed_by(kernel_name):
    if kernel_name in kernel.CROSS: # is built for, and not booted
        return [f"compiler-{kernel_name}", f"kernel-{kernel_name}"]
    return ["qemu", "cpio", "busybox", f"kernel-{kernel_name}"]


def reason_to_skip(kernel_name, further=()):
    """The line that a skipped test prints; None where all is there. further: of FURTHER."""
    for name in [*needed_by(kernel_name), *further]:
        missing = PROBES[name]()
        if missing:
            return f"vm/{kernel_name} for its probe {name}: {missing}"
    return None


def reason_without(name):
    """The line of the test run/NAME, which needs the probe of that name alone; None if it is there."""
    missing = PROBES[name]()
    return f"run/{name} for its probe {name}: {missing}" if missing else None


def without_excuse(lines):
    """Of a list of skipped tests, the lines with a probe that no failing one excuses."""
    return [line for line in lines if re.search("SKIPPED: (vm|run)/", line) and not excused(line)]


def excused(line):
    found = SKIPPED.search(line)
    if not found:
        return False
    room, test, name = found.groups()
    if room == "run":
        return test == name == "testpmd" and PROBES[name]() != ""
    return f"kernel-{test}" in PROBES and name in [*needed_by(test), *FURTHER] and PROBES[name]() != ""


def main(words):
    if words[:1] == ["--excuses"]:
        lines = [line for file in words[1:] for line in pathlib.Path(file).read_text().splitlines()]
        bad = without_excuse(lines)
        for line in bad:
            print(f"skipped, but its probe succeeds here: {line.strip()}")
        return 1 if bad else 0
    failed = False
    for name in words or PROBES:
        missing = PROBES[name]()
        failed = failed or bool(missing)
        print(f"{name}: {missing or 'ok'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
