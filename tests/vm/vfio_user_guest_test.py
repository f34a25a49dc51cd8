#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""vfio_user_guest_test.py KERNEL MOAT: a QEMU with vfio-user-pci gives a Linux guest the NVMe controller of
`moat serve`. The guest's driver writes and reads the whole disk: with memory passed by descriptors, by
messages, and by a proxy. Behind a strict vIOMMU, an overrun is found past a buffer that the guest's driver
mapped; the proxy before an unchecked device finds the same. Exit status 77 where a probe fails, with its name.

With a third argument, FOLDER, it writes the sessions of tests/serve/data there instead."""
import contextlib
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import guest_run
import soft_disk
from guest_run import Failed
import machine
import newer_qemu


@contextlib.contextmanager
def serving(moat, *words):
    """`moat serve` with these words; yields a list that has what it printed once it has ended."""
    server = subprocess.Popen([moat, "serve", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    printed = []
    try:
        if " at " not in server.stdout.readline():
            raise Failed("moat serve: " + server.stderr.read())
        yield printed
        server.send_signal(signal.SIGTERM)
        printed += server.communicate(timeout=20)[1].splitlines()
        print(*printed[-40:], sep="\n")
    finally:
        server.kill()
        server.wait()


class Bench:
    """A kernel, a moat and a folder for sockets."""

    def __init__(self, name, moat, folder):
        self.name, self.moat, self.folder = name, moat, folder
        self.qemu = newer_qemu.words("qemu-system-x86_64")

    def run(self, socket, job, **changes):
        return soft_disk.run(self.name, machine.on_served_disk(socket, self.qemu, **changes), job)

    def server(self, *words):
        return serving(self.moat, "--device", "nvme", "--socket", self.folder / "nvme", *words)

    def proxy(self, *words):
        return serving(self.moat, "--proxy", self.folder / "nvme", "--socket", self.folder / "proxy", *words)

    def faults(self, file):
        return [json.loads(line) for line in (self.folder / file).read_text().splitlines()]


def check_right(printed):
    if not re.search(r"moat serve: [1-9].* clients, .* 0 findings$", printed[-1]):
        raise Failed(f"a right disk was blamed, or served nobody: {printed[-1]}")


def right_disk(bench):
    for memory in (machine.SHARED_MEMORY, ()):
        with bench.server() as printed:
            soft_disk.check_whole_disk(bench.run(bench.folder / "nvme", soft_disk.WHOLE_DISK, iommu="",
                                                 devices=memory))
        check_right(printed)
    with bench.server() as printed, bench.proxy() as of_proxy:
        soft_disk.check_whole_disk(bench.run(bench.folder / "proxy", soft_disk.WHOLE_DISK, iommu="",
                                             devices=machine.SHARED_MEMORY))
    check_right(printed)
    check_right(of_proxy)


def overrun(bench):
    """The firmware and the kernel read the disk before: the first commands are right."""
    with bench.server("--inject", "overrun", "--after", "20", "--json", bench.folder / "alone"):
        bench.run(bench.folder / "nvme", soft_disk.READ_FIVE_PAGES)
    check_overrun(bench.faults("alone"))
    with bench.server("--inject", "overrun", "--after", "20", "--unchecked"), \
            bench.proxy("--json", bench.folder / "between"):
        bench.run(bench.folder / "proxy", soft_disk.READ_FIVE_PAGES)
    check_overrun(bench.faults("between"))
    if (alone := kinds(bench.faults("alone"))) != (between := kinds(bench.faults("between"))):
        raise Failed(f"the server finds {alone}, the proxy {between}")


def write_sessions(bench, folder):
    """The messages of a boot and a few reads, without and behind a vIOMMU."""
    for name, iommu in (("plain", {"iommu": ""}), ("viommu", {})):
        with bench.server("--messages", folder / f"qemu_11_1_{name}.messages"):
            bench.run(bench.folder / "nvme", soft_disk.READ_FIVE_PAGES, **iommu)


def kinds(faults):
    return {(fault["kind"], fault["access"], fault["bytes"]) for fault in faults}


def check_overrun(faults):
    """Each begins where a page ends that the guest's driver mapped, and is named so, although QEMU mapped all
    memory before the guest turned its IOMMU on."""
    at_the_end = [fault for fault in faults if fault["schema"] == "moat.fault/1" and
                  fault["kind"] == "dma-buffer-overflow" and
                  int(fault["address"], 16) == int(fault["mapping"]["start"], 16) + fault["mapping"]["bytes"]]
    if not faults or len(at_the_end) != len(faults):
        raise Failed(f"overruns found: {len(faults)}, at the end of a buffer: {len(at_the_end)}; "
                     f"{json.dumps(faults[:1])}")


def test(name, moat, sessions=None):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        bench = Bench(name, moat, pathlib.Path(folder))
        if sessions:
            return write_sessions(bench, pathlib.Path(sessions))
        right_disk(bench)
        return overrun(bench)


if __name__ == "__main__":
    sys.exit(guest_run.main(sys.argv[1], lambda: test(*sys.argv[1:]), ["qemu-new"]))
