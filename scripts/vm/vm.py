# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""./dev vm: runs a command in a virtual machine with a Linux kernel, an IOMMU and devices behind it.

Prints what the command prints and exits with its status; 125 where the machine did not come to run
it or its kernel oopsed; 124 where the time was over; 77 where the kernel is not to be had."""

import argparse
import pathlib
import sys
import tempfile

import boot
import debian
import initramfs
import kernel
import newer_qemu
from machine import MACHINES

NOT_RUN, TIMED_OUT, UNAVAILABLE = 125, 124, 77


def main():
    options = parse()
    try:
        if options.build_kernel:
            print(kernel.build(options.build_kernel, options.jobs, options.patches).image)
            return 0
        if options.fetch_kernel:
            debian.fetch(options.fetch_kernel, options.suite)
            print(kernel.find(options.fetch_kernel).image or "headers only")
            return 0
        if options.fetch_qemu:
            newer_qemu.fetch()
            return 0
        chosen = kernel.find(options.kernel)
    except kernel.Unavailable as why:
        say(str(why))
        return UNAVAILABLE
    outcome = run_but_for_flake(lambda: run(chosen, options))
    if outcome.why:
        say("\n".join(outcome.console[-60:]))
        say(f"{chosen.name}: {outcome.why}")
        return TIMED_OUT if "within" in outcome.why else NOT_RUN
    return outcome.status


def run_but_for_flake(once):
    outcome = once()
    if not outcome.is_known_flake():
        return outcome
    say("the emulated processor hit a removed breakpoint (a known flake): booting once more")
    return once()


def run(chosen, options):
    machine = MACHINES[options.machine]
    if options.count_instructions:
        machine = machine.counting_instructions()
    elif options.single_thread:
        machine = machine.single_threaded()
    with tempfile.TemporaryDirectory(prefix="moat-vm-") as folder:
        folder = pathlib.Path(folder)
        disks = options.disks or folder
        machine.make_disks(disks)
        image = folder / "initramfs.gz"
        initramfs.write(image, chosen.to_insert(machine.modules), options.program, options.command)
        return boot.boot(chosen, image, machine, disks, options.limit, options.memory,
                         lambda line: print(line, flush=True))


def parse():
    fetched = [*debian.KERNELS, *debian.FOREIGN]
    parser = argparse.ArgumentParser(prog="./dev vm", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kernel", default="stock",
                        help=f"{', '.join(kernel.NAMES)}, or the path of a bzImage (stock)")
    parser.add_argument("--build-kernel", nargs="?", const="iommufd", choices=kernel.BUILT, metavar="KERNEL",
                        help=f"build a kernel, once: {', '.join(kernel.BUILT)} (iommufd)")
    parser.add_argument("--with", dest="patches", type=pathlib.Path, action="append", default=[], metavar="FILE",
                        help="a patch to build it with (more than once); --kernel then takes the path that is printed")
    parser.add_argument("--fetch-kernel", nargs="?", const="new", choices=fetched, metavar="KERNEL",
                        help=f"fetch a kernel of Debian: {', '.join(fetched)} (new; arm64: headers alone)")
    parser.add_argument("--fetch-qemu", action="store_true",
                        help=f"fetch the QEMU of Debian's {newer_qemu.SUITE}, for tests")
    parser.add_argument("--suite", help="fetch it from this suite of Debian")
    parser.add_argument("--machine", default="vfio", choices=MACHINES,
                        help="vfio: devices for user space; drivers: devices for the kernel's drivers; "
                             "virtio: one behind a virtio-iommu (vfio)")
    parser.add_argument("--count-instructions", action="store_true",
                        help="one processor whose clock advances one ns an instruction")
    parser.add_argument("--single-thread", action="store_true",
                        help="processors that run by turns, for code that patches the kernel")
    parser.add_argument("--program", type=pathlib.Path, action="append", default=[],
                        help="a file to copy into /bin (more than once)")
    parser.add_argument("--disks", type=pathlib.Path, metavar="FOLDER",
                        help="the folder of the machine's disks, as nvme.img (empty ones)")
    parser.add_argument("--limit", type=int, default=120, help="seconds until it is ended (120)")
    parser.add_argument("--memory", type=int, default=2048, help="MiB (2048)")
    parser.add_argument("--jobs", type=int, default=2, help="processes that build the kernel")
    parser.add_argument("command", nargs="*", default=["uname", "-a"], help="what to run (uname -a)")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
