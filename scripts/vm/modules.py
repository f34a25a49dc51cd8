# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The kernel's modules as files: their names, what they depend on, and the order of insertion."""

import lzma
import re


def name_of(text):
    """The module that a path, a file's name or a word means: both spell it with hyphens or without."""
    return str(text).rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")


def content(file):
    packed = file.read_bytes()
    return lzma.decompress(packed) if file.suffix == ".xz" else packed


def dependencies(file):
    found = re.search(rb"\0depends=([^\0]+)\0", content(file))
    return [name_of(name) for name in found.group(1).decode().split(",")] if found else []


def in_order(names, files):
    """The files of these modules, each after those that it depends on. files: one for each module that
    is not built in."""
    order = {}

    def add(name):
        if name in files and name not in order:
            for other in dependencies(files[name]):
                add(other)
            order[name] = files[name]

    for name in names:
        add(name_of(name))
    return list(order.values())
