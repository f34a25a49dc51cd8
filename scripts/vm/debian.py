# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Debian's kernels for the lab: an image, the modules that the machines insert, and for kernels whose
drivers are tested a tree to build modules in; of another architecture that tree alone. Packages are
unpacked, none is installed."""

import os
import pathlib
import re
import shutil
import subprocess
from dataclasses import dataclass

import modules
from cache import Unavailable, cache_folder, locked, replace, run, scratch
from machine import DRIVERS, VFIO, VIRTIO


@dataclass(frozen=True)
class Packages:
    """image, headers: packages that depend on those of the newest version; suite: the one to fetch them
    of, or "" for this host's; architecture: theirs, if it is not this host's."""

    image: str = ""
    headers: str = ""
    suite: str = ""
    architecture: str = ""
    modules: tuple[str, ...] = VFIO.modules + DRIVERS.modules

    def mark(self):
        """The text that a whole folder holds: another one is of other packages or modules."""
        return "\n".join([self.image, self.headers, *self.modules, ""])


KERNELS = {
    "stock": Packages("linux-image-6.12-cloud-amd64", modules=VFIO.modules),
    "drivers": Packages("linux-image-6.12-amd64", "linux-headers-6.12-amd64"),
    "virtio": Packages("linux-image-6.12-amd64", "linux-headers-6.12-amd64", modules=VIRTIO.modules),
    "old": Packages("linux-image-amd64", "linux-headers-amd64", "bookworm"),
    "new": Packages("linux-image-amd64", "linux-headers-amd64", "trixie-backports"),
}
# Trees to build modules in, by architecture. Their programs are this host's.
FOREIGN = {"arm64": Packages(headers="linux-headers-arm64:arm64", suite="bookworm-backports", modules=(),
                             architecture="arm64")}
# A package that names the newest kernel depends on the one that holds it, or on several.
IMAGE_PART = re.compile(r"linux-(?:image|binary|modules)-[0-9][^\s,]*")
HEADERS_PART = re.compile(r"linux-(?:headers|kbuild)-[0-9][^\s,]*")
# What the programs among the headers load.
RUNTIME = ["libc6", "libelf1t64", "zlib1g", "libzstd1"]


def find(name):
    """The kernel's folder in the cache. One of this host's suites is fetched. Raises Unavailable."""
    folder = cache_folder() / name
    packages = (KERNELS | FOREIGN)[name]
    mark = folder / "ready"
    with locked(name):
        if mark.exists() and mark.read_text() == packages.mark():
            return folder
        if packages.suite:
            raise Unavailable(f"no kernel {name} yet: ./dev vm --fetch-kernel {name} fetches it from Debian "
                              f"({packages.suite})")
        unpack(packages, folder)
    return folder


def fetch(name, suite=None):
    """Of a suite that this host need not have: its lists go into a folder of their own."""
    packages = (KERNELS | FOREIGN)[name]
    with locked(name), scratch() as work:
        options = lists_of(suite or packages.suite, packages.architecture, work) if suite or packages.suite else ()
        unpack(packages, cache_folder() / name, options)


def lists_of(suite, architecture, work):
    """Options of apt for the suite, with packages of that architecture beside this host's, on the mirror that this host takes Debian from."""
    mirrors = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                   "Origin: Debian", "Label: Debian"], stdout=subprocess.PIPE).stdout.split()
    if not mirrors:
        raise Unavailable("apt has no Debian mirror to fetch a kernel from")
    keys = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={keys}] " if keys.exists() else ""
    lines = [f"deb {signed}{mirrors[0]} {each} main\n" for each in {suite, suite.removesuffix("-backports")}]
    (work / "suite.list").write_text("".join(lines))
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
               "-o", f"Dir::Etc::sourcelist={work}/suite.list", "-o", "Dir::Etc::sourceparts=/dev/null",
               "-o", f"APT::Default-Release={suite}"]
    if architecture:
        own = run(["dpkg", "--print-architecture"], stdout=subprocess.PIPE).stdout.strip()
        options += ["-o", f"APT::Architectures::={own}", "-o", f"APT::Architectures::={architecture}"]
    run(["apt-get", *options, "update"])
    return options


def unpack(packages, folder, apt_options=()):
    with scratch() as work:
        parts = []
        if packages.image:
            unpack_image(packages, work, apt_options)
            parts += ["boot", "modules"]
        if packages.headers:
            unpack_all(packages.headers, HEADERS_PART, work / "headers", apt_options)
            make_movable(headers_in(work))
            bring_runtime(work / "headers", apt_options)
            parts.append("headers")
        (folder / "ready").unlink(missing_ok=True)
        for part in parts:
            replace(work / part, folder / part)
        (folder / "ready").write_text(packages.mark())


def unpack_image(packages, work, apt_options):
    unpack_all(packages.image, IMAGE_PART, work / "root", apt_options)
    image = next((work / "root").rglob("vmlinuz*"))
    release = next((work / "root").rglob("lib/modules/*/kernel")).parent.name
    (work / "boot").mkdir()
    shutil.move(image, work / "boot" / f"vmlinuz-{release}")
    place_modules(packages, work)


def headers_in(folder):
    """The tree that modules are built in; None without one."""
    found = (folder / "headers").glob("usr/src/linux-headers-*/Module.symvers")
    return next((file.parent for file in found), None)


def unpack_all(package, part, root, apt_options):
    """Unpacks the package and those it depends on that match the part."""
    wanted, seen = [package], set()
    while wanted:
        package = wanted.pop()
        seen.add(package)
        depends = unpack_one(package, root, apt_options)
        wanted += set(part.findall(depends)) - seen - set(wanted)


def unpack_one(package, root, apt_options):
    """The packages that it depends on, as it names them."""
    with scratch() as work:
        file = download(package, work, apt_options)
        run(["dpkg-deb", "-x", file, root])
        return run(["dpkg-deb", "-f", file, "Depends"], stdout=subprocess.PIPE).stdout


def place_modules(packages, work):
    """The wanted modules and all that they depend on; the kernel's own list names what is built in."""
    files = {modules.name_of(file): file for file in (work / "root").rglob("*.ko*")}
    builtin = {modules.name_of(line) for file in (work / "root").rglob("modules.builtin")
               for line in file.read_text().splitlines()}
    for name in packages.modules:
        if modules.name_of(name) not in files.keys() | builtin:
            raise Unavailable(f"{packages.image} has no module {name}")
    (work / "modules").mkdir()
    for file in modules.in_order(packages.modules, files):
        (work / "modules" / f"{modules.name_of(file)}.ko").write_bytes(modules.content(file))


def make_movable(headers):
    """The tree names its parts by absolute paths. Its vmlinux is there for BTF, which needs pahole."""
    makefile = headers / "Makefile"
    makefile.write_text("moat_sources := $(abspath $(dir $(lastword $(MAKEFILE_LIST)))..)/\n" +
                        makefile.read_text().replace("/usr/src/", "$(moat_sources)"))
    (headers / "vmlinux").unlink(missing_ok=True)


def bring_runtime(root, apt_options):
    """The tree's programs may need a newer C library than the host's: then they run with that of their
    own suite, which is unpacked beside them."""
    foreign = [file for file in root.rglob("usr/lib/linux-kbuild-*/**/*") if is_foreign(file)]
    if not foreign:
        return
    for package in RUNTIME:
        unpack_one(package, root / "runtime", apt_options)
    for file in foreign:
        program = file.rename(file.with_name(f"{file.name}.elf"))
        runtime = f"$(dirname $0)/{os.path.relpath(root, file.parent)}/runtime/usr/lib/x86_64-linux-gnu"
        file.write_text(f'#!/bin/sh\nexec "{runtime}/ld-linux-x86-64.so.2" --library-path "{runtime}" '
                        f'"$0.elf" "$@"\n')
        file.chmod(0o755)


def is_foreign(file):
    """Whether the loader misses a version of a library that the program names."""
    if not file.is_file() or file.read_bytes()[:4] != b"\x7fELF":
        return False
    done = subprocess.run(["ldd", file], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "not found" in done.stdout + done.stderr


def download(package, folder, apt_options=()):
    run(["apt-get", *apt_options, "download", package], cwd=folder)
    return next(folder.glob(f"{package.split(':')[0]}_*.deb"))
