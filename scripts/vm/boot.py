# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""One boot of a kernel in QEMU, without KVM: bounded in time, ended by its process id, judged by what
came over the console."""

import ctypes
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import dataclass, field

from initramfs import BEGIN, END

# no_timer_check: on a busy host the kernel's check that timers tick finds too few, and it panics.
APPEND = "console=ttyS0 panic=-1 oops=panic intel_iommu=on iommu=nopt quiet no_timer_check"
# The kernel patches its own code by way of a breakpoint, and an emulated processor may meet that when
# it is gone already: then the kernel dies of it. One boot in about eighty does when it settles on a
# clock, before any program of ours runs (sched_clock_cpu in 6.12, ktime_get in 7.3); rarely
# one does when a tracepoint is opened, which hooks into the scheduler for the names of tasks.
BREAKPOINT = re.compile(r"Oops: int3")
IN_CLOCK = re.compile(r"RIP: \S*:(sched_clock_cpu|ktime_get)\+")
IN_SCHEDULER = re.compile(r"RIP: \S*:(ttwu_do_activate|__schedule)\+")
OOPS = re.compile(r"Oops|BUG:|Kernel panic|general protection fault|INFO: task .* blocked|rcu.*stall")


@dataclass
class Outcome:
    """status: the job's, or None where it never ended; why: what was wrong, or "" """

    status: int | None = None
    why: str = ""
    began: bool = False
    console: list[str] = field(default_factory=list)

    def is_known_flake(self):
        def said(what):
            return any(what.search(line) for line in self.console)

        return said(BREAKPOINT) and (said(IN_SCHEDULER) or (said(IN_CLOCK) and not self.began))


def boot(kernel, initramfs, machine, disks, limit_s, memory_mib, on_line):
    """Boots, runs the job, powers off. disks: the folder of the machine's disks. on_line sees each line
    of the job as it comes."""
    command = [
        *machine.before, *machine.qemu, *machine.accelerator, "-cpu", "max",
        "-machine", "q35,kernel-irqchip=split", "-smp", str(machine.processors), "-m", str(memory_mib),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
        "-monitor", "none", *(["-device", machine.iommu] if machine.iommu else []),
        "-kernel", str(kernel.image), "-initrd", str(initramfs),
        "-append", f"{APPEND} {machine.append}".strip(), *machine.words(disks)]
    emulator = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=end_with_parent)
    try:
        return follow(emulator, limit_s, on_line)
    finally:
        emulator.kill()
        emulator.wait()


def end_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def follow(emulator, limit_s, on_line):
    outcome = Outcome()
    deadline = time.monotonic() + limit_s
    for line in lines_until(emulator.stdout, deadline):
        outcome.console.append(line)
        if line.startswith(END):
            outcome.status = int(line.rsplit(" ", 1)[1])
        elif line == BEGIN:
            outcome.began = True
        elif outcome.began and outcome.status is None:
            on_line(line)
        if OOPS.search(line) and not outcome.why:
            outcome.why = f"the kernel printed: {line}"
    if not outcome.why and outcome.status is None:
        late = time.monotonic() >= deadline
        outcome.why = f"not finished within {limit_s} s" if late else "the machine stopped before the command finished"
    return outcome


def lines_until(stream, deadline):
    os.set_blocking(stream.fileno(), False)
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([stream], [], [], left)[0]:
            return
        piece = stream.read()
        if not piece:
            return
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
