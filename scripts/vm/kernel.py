# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Kernels for the lab: Debian's and a newer one of Debian's, unpacked and not installed; one built for
iommufd; or a given file. What is fetched or built stays in the cache folder and is used again."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

CONFIG = pathlib.Path(__file__).parent / "iommufd.config"
STOCK = "linux-image-6.12-cloud-amd64"
NEWEST = "linux-image-cloud-amd64"
NEWEST_SUITE = "trixie-backports"
SOURCE = "linux-source-6.12"
# In the order of insertion. Kernels with VFIO built in have none of them.
MODULES = ["irqbypass", "vfio", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci"]


@dataclass(frozen=True)
class Kernel:
    """image: what boots; modules: files to insert, in order, uncompressed."""

    name: str
    image: pathlib.Path
    modules: tuple[pathlib.Path, ...]


class Unavailable(Exception):
    """This kernel is not here and could not be had; the text says why and what to do."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "moat" / "vm"


def find(name):
    """name: "stock", "new", "iommufd" or a kernel image's path. Raises Unavailable."""
    if name == "stock":
        if not (cache_folder() / "stock" / "ready").exists():
            unpack(STOCK, cache_folder() / "stock")
        return debian("stock")
    if name == "new":
        if not (cache_folder() / "new" / "ready").exists():
            raise Unavailable("no newer kernel yet: ./dev vm --fetch-kernel fetches one from Debian "
                              f"({NEWEST_SUITE})")
        return debian("new")
    if name == "iommufd":
        image = cache_folder() / "iommufd" / "bzImage"
        if not image.exists():
            raise Unavailable("no iommufd kernel yet: ./dev vm --build-kernel builds it (10 to 15 minutes)")
        return Kernel("iommufd", image, ())
    image = pathlib.Path(name)
    if not image.is_file():
        raise Unavailable(f"unknown kernel {name}; valid: stock, new, iommufd, or the path of a bzImage")
    return Kernel(image.name, image, ())


def debian(name):
    folder = cache_folder() / name
    image = next((folder / "boot").glob("vmlinuz-*"))
    modules = tuple(folder / "modules" / f"{name}.ko" for name in MODULES)
    return Kernel(f"{name} " + image.name.removeprefix("vmlinuz-"), image, modules)


def fetch_new(suite):
    """Of a suite that this host need not have: its lists go into a folder of their own."""
    with scratch() as work:
        unpack(NEWEST, cache_folder() / "new", lists_of(suite, work))
    return find("new")


def lists_of(suite, work):
    """Options of apt for the suite, on the mirror that this host takes Debian from."""
    mirrors = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages",
                   "Origin: Debian", "Label: Debian"], stdout=subprocess.PIPE).stdout.split()
    if not mirrors:
        raise Unavailable("apt has no Debian mirror to fetch a kernel from")
    keys = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    signed = f"[signed-by={keys}] " if keys.exists() else ""
    (work / "suite.list").write_text(f"deb {signed}{mirrors[0]} {suite} main\n")
    for part in ("lists/partial", "cache/archives/partial"):
        (work / part).mkdir(parents=True)
    options = ["-o", f"Dir::State::lists={work}/lists", "-o", f"Dir::Cache={work}/cache",
               "-o", f"Dir::Etc::sourcelist={work}/suite.list", "-o", "Dir::Etc::sourceparts=/dev/null"]
    run(["apt-get", *options, "update"])
    return options


# The package that names the newest kernel depends on the one that holds it, or on several.
PART = re.compile(r"linux-(?:image|binary|modules)-[0-9][^\s,]*")


def unpack(package, folder, apt_options=()):
    with scratch() as work:
        wanted, seen = [package], set()
        while wanted:
            package = wanted.pop()
            seen.add(package)
            file = download(package, work, apt_options)
            run(["dpkg-deb", "-x", file, work / "root"])
            wanted += set(PART.findall(field(file, "Depends"))) - seen
        place_modules(package, work)
        image = next((work / "root").rglob("vmlinuz*"))
        release = next((work / "root").rglob("lib/modules/*/kernel")).parent.name
        (work / "boot").mkdir()
        shutil.move(image, work / "boot" / f"vmlinuz-{release}")
        for part in ("boot", "modules"):
            replace(work / part, folder / part)
        (folder / "ready").touch()


def place_modules(package, work):
    (work / "modules").mkdir()
    for name in MODULES:
        packed = next((work / "root").rglob(f"{name}.ko*"), None)
        if packed is None:
            raise Unavailable(f"{package} has no module {name}")
        unpacked = work / "modules" / f"{name}.ko"
        if packed.suffix == ".xz":
            with open(unpacked, "wb") as out:
                run(["xz", "-dc", packed], stdout=out)
        else:
            shutil.copy(packed, unpacked)


def build_iommufd(jobs):
    """Builds the iommufd kernel from Debian's source. About nine minutes of two cores."""
    with scratch() as work:
        package = download(SOURCE, work)
        run(["dpkg-deb", "-x", package, work / "root"])
        archive = next((work / "root").rglob("linux-source-*.tar.xz"))
        run(["tar", "-C", work, "-xf", archive])
        tree = next(work.glob("linux-source-*/"))
        run(["make", "-C", tree, "allnoconfig"], env={"KCONFIG_ALLCONFIG": str(CONFIG)})
        check_config(tree / ".config")
        run(["make", "-C", tree, f"-j{jobs}", "bzImage"])
        replace(tree / "arch/x86/boot/bzImage", cache_folder() / "iommufd" / "bzImage")
    return find("iommufd")


def check_config(made):
    """Kconfig drops what it does not know or what lacks a dependency without a word."""
    lines = set(made.read_text().splitlines())
    wanted = [line for line in CONFIG.read_text().splitlines() if line.endswith("=y")]
    missing = [line for line in wanted if line not in lines]
    if missing:
        raise Unavailable("the kernel's configuration rejected: " + " ".join(missing))


def download(package, folder, apt_options=()):
    run(["apt-get", *apt_options, "download", package], cwd=folder)
    return next(folder.glob(f"{package}_*.deb"))


def field(package, name):
    return run(["dpkg-deb", "-f", package, name], stdout=subprocess.PIPE).stdout.strip()


def replace(made, kept):
    """Moves what was made to where it is kept; an interrupted run leaves nothing that looks whole."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    if kept.is_dir():
        shutil.rmtree(kept)
    shutil.move(made, kept)


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
