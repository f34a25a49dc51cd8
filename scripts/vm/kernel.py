# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Kernels for the lab: Debian's, unpacked and not installed; one built for iommufd; or a given file.
What is fetched or built stays in the cache folder and is used again."""

import pathlib
from dataclasses import dataclass

import debian
import modules
from cache import Unavailable, cache_folder, replace, run, scratch

CONFIG = pathlib.Path(__file__).parent / "iommufd.config"
SOURCE = "linux-source-6.12"
NAMES = [*debian.KERNELS, "iommufd"]


@dataclass(frozen=True)
class Kernel:
    """image: what boots; modules: a folder of them, uncompressed; headers: where external modules are
    built, if there are any."""

    name: str
    image: pathlib.Path
    modules: pathlib.Path | None = None
    headers: pathlib.Path | None = None

    def to_insert(self, names):
        """The files of these modules after all that they depend on. What has no file is built in."""
        files = self.modules.glob("*.ko") if self.modules else ()
        return modules.in_order(names, {modules.name_of(file): file for file in files})


def find(name):
    """name: one of NAMES or a kernel image's path. Raises Unavailable."""
    if name in debian.KERNELS:
        return of_debian(name, debian.find(name))
    if name == "iommufd":
        image = cache_folder() / "iommufd" / "bzImage"
        if not image.exists():
            raise Unavailable("no iommufd kernel yet: ./dev vm --build-kernel builds it (10 to 15 minutes)")
        return Kernel("iommufd", image)
    image = pathlib.Path(name)
    if not image.is_file():
        raise Unavailable(f"unknown kernel {name}; valid: {', '.join(NAMES)}, or the path of a bzImage")
    return Kernel(image.name, image)


def of_debian(name, folder):
    image = next((folder / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    headers = folder / "headers" / "usr/src" / f"linux-headers-{release}"
    return Kernel(f"{name} {release}", image, folder / "modules", headers if headers.exists() else None)


def build_iommufd(jobs):
    """Builds the iommufd kernel from Debian's source. About nine minutes of two cores."""
    with scratch() as work:
        package = debian.download(SOURCE, work)
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
