# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The folder where the lab keeps kernels, and how one is put there."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import subprocess
import tempfile


class Unavailable(Exception):
    """This kernel is not here and could not be had; the text says why and what to do."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "moat" / "vm"


def replace(made, kept):
    """Moves what was made to where it is kept; an interrupted run leaves nothing that looks whole."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    if kept.is_dir():
        shutil.rmtree(kept)
    shutil.move(made, kept)


@contextlib.contextmanager
def locked(name):
    """For one process at a time: of tests that need a kernel at once, the first fetches it."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch():
    cache_folder().mkdir(parents=True, exist_ok=True)
    return ScratchFolder(cache_folder())


class ScratchFolder(tempfile.TemporaryDirectory):
    def __init__(self, parent):
        super().__init__(dir=parent, prefix="making-")

    def __enter__(self):
        return pathlib.Path(super().__enter__())


def run(command, env=None, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(env or {})}, **options)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-20:])
        raise Unavailable(f"{' '.join(map(str, command))}: exit status {done.returncode}\n{tail}")
    return done
