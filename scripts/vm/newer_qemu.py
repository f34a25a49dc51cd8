# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A QEMU newer than this host's, of Debian's backports, beside the kernels in the cache. Its packages are
unpacked with all that they need, none is installed; its programs run by its own loader."""

import debian
from cache import Unavailable, cache_folder, replace, run, scratch

SUITE = "trixie-backports"
PACKAGES = ("qemu-system-x86", "qemu-utils")
FOLDER = "qemu-new"


def words(program):
    """What runs this program of it, before the program's own arguments. Raises Unavailable."""
    root = cache_folder() / FOLDER
    if not root.is_dir():
        raise Unavailable("no newer QEMU yet: ./dev vm --fetch-qemu fetches it from Debian "
                          f"({SUITE}, 40 MB)")
    libraries = root / "usr/lib/x86_64-linux-gnu"
    command = [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries, root / "usr/bin" / program]
    if program.startswith("qemu-system"):
        for data in ("qemu", "seabios"):
            command += ["-L", root / "usr/share" / data]
    return [str(word) for word in command]


def fetch():
    """Replaces the one in the cache. Raises Unavailable."""
    with scratch() as work:
        options = debian.lists_of(SUITE, "", work)
        nothing_installed = work / "status"
        nothing_installed.touch()
        run(["apt-get", *options, "-o", f"Dir::State::status={nothing_installed}", "-o",
             "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "--no-install-recommends",
             "--download-only", "--yes", "install", *PACKAGES])
        for package in sorted((work / "cache/archives").glob("*.deb")):
            run(["dpkg-deb", "-x", package, work / "root"])
        replace(work / "root", cache_folder() / FOLDER)
