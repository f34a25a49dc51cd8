#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_builds_test.py KERNEL: builds moat_guard against a kernel's headers, without a boot, and against such headers as
it must refuse: the compiler's words name the check. Exit status 77 where a probe of scripts/vm/probe.py fails."""
import pathlib
import sys
import tempfile

import guest_run
from guest_run import Failed, ROOT, cache, external_module, kernel

SOURCES = ROOT / "kernel/moat_guard"
# What a configuration has instead of this kernel's, and what names the check that fails.
REFUSED = {
    "#define CONFIG_PREEMPT_RT 1": "on PREEMPT_RT the IOVA tree's lock sleeps",
    "#define CONFIG_LTO_CLANG 1": "with LTO the hooked functions may be inlined",
    "#undef CONFIG_DYNAMIC_FTRACE_WITH_ARGS": "the kernel lacks CONFIG_DYNAMIC_FTRACE_WITH_ARGS",
    "#undef CONFIG_IOMMU_DMA": "the kernel lacks CONFIG_IOMMU_DMA",
}
FUNCTIONS = ("alloc_iova_fast", "free_iova_fast")


def refusal(built_for, folder, make=()):
    """The words of the build that fails."""
    try:
        external_module.build(built_for, SOURCES, folder, make)
    except cache.Unavailable as why:
        return str(why)
    return ""


def without_function(headers, folder, name):
    """The tree, whose kernel does not export the function."""
    for each in headers.parent.iterdir():
        (folder / each.name).symlink_to(each)
    (folder / headers.name).unlink()
    (folder / headers.name).mkdir()
    for each in headers.iterdir():
        if each.name == "Module.symvers":
            kept = [line for line in each.read_text().splitlines(True) if line.split("\t")[1] != name]
            (folder / headers.name / each.name).write_text("".join(kept))
        else:
            (folder / headers.name / each.name).symlink_to(each.resolve())
    return folder / headers.name


def check_refusals(found, folder):
    for number, (change, words) in enumerate(REFUSED.items()):
        header = folder / f"change{number}.h"
        header.write_text(change + "\n")
        # Preprocessed alone: such headers do not compile here.
        said = refusal(found, folder / f"refused{number}", ["hooks.i", f"KCFLAGS=-include {header}"])
        if f"moat_guard: {words}" not in said:
            raise Failed(f"{change}: not refused with {words!r}: {said}")
    for name in FUNCTIONS:
        (folder / f"tree_{name}").mkdir()
        tree = without_function(found.headers, folder / f"tree_{name}", name)
        said = refusal(kernel.Kernel("changed", headers=tree), folder / name)
        if f'"{name}"' not in said or "undefined" not in said:
            raise Failed(f"without {name}: {said}")


def test(name):
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        folder = pathlib.Path(folder)
        guest_run.build(name, SOURCES, folder / "plain")
        if name not in kernel.CROSS:
            check_refusals(kernel.find(name), folder)


sys.exit(guest_run.main(sys.argv[1], lambda: test(sys.argv[1])))
