# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Builds a module from its sources against a kernel's unpacked headers."""

import pathlib
import shutil

from cache import Unavailable, run

COMPILER = pathlib.Path(__file__).parent / "kernel_gcc"


def build(kernel, sources, folder, make=()):
    """The module's file, made in a copy of the sources in the folder, with further words for make. Raises
    Unavailable with the compiler's words."""
    if kernel.headers is None:
        raise Unavailable(f"{kernel.name} has no headers to build modules with; drivers, virtio, old and new have")
    work = folder / sources.name
    shutil.copytree(sources, work)
    run(["make", "-C", kernel.headers, f"M={work}", f"CC={COMPILER}", *kernel.make, *make, "modules"])
    return next(work.glob("*.ko"))
