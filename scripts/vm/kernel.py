# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Kernels for the lab: Debian's, unpacked and not installed; those built from Debian's source, one with
iommufd and two with the kernel's own checkers; or a given file. What is fetched or built stays in the
cache folder and is used again."""

import pathlib
from dataclasses import dataclass

import debian
import modules
from cache import Unavailable, cache_folder, replace, run, scratch

SOURCE = "linux-source-6.12"
FOLDER = pathlib.Path(__file__).parent
# The files of options that each kernel adds to allnoconfig.
BUILT = {
    "iommufd": ("iommufd.config",),
    "debug": ("iommufd.config", "debug.config", "checkers.config"),
    "races": ("iommufd.config", "debug.config", "races.config"),
}
NAMES = [*debian.KERNELS, *BUILT]
CROSS = {"arm64": "aarch64-linux-gnu-"}


@dataclass(frozen=True)
class Kernel:
    """image: what boots, if anything does; modules: a folder of them, uncompressed; headers: where
    external modules are built, if there are any; make: words for make there, beyond this host's."""

    name: str
    image: pathlib.Path | None = None
    modules: pathlib.Path | None = None
    headers: pathlib.Path | None = None
    make: tuple[str, ...] = ()

    def to_insert(self, names):
        """The files of these modules after all that they depend on. What has no file is built in."""
        files = self.modules.glob("*.ko") if self.modules else ()
        return modules.in_order(names, {modules.name_of(file): file for file in files})


def find(name):
    """name: one of NAMES or a kernel image's path. Raises Unavailable."""
    if name in debian.KERNELS:
        return of_debian(name, debian.find(name))
    if name in debian.FOREIGN:
        words = (f"ARCH={name}", f"CC={CROSS[name]}gcc", f"CROSS_COMPILE={CROSS[name]}")
        return Kernel(name, headers=debian.headers_in(debian.find(name)), make=words)
    if name in BUILT:
        image = cache_folder() / name / "bzImage"
        if not image.exists():
            raise Unavailable(f"no {name} kernel yet: ./dev vm --build-kernel {name} builds it (10 minutes or more)")
        headers = cache_folder() / name / "headers"
        return Kernel(name, image, headers=headers if headers.exists() else None)
    image = pathlib.Path(name)
    if not image.is_file():
        raise Unavailable(f"unknown kernel {name}; valid: {', '.join(NAMES)}, or the path of a bzImage")
    return Kernel(image.name, image)


def of_debian(name, folder):
    image = next((folder / "boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    return Kernel(f"{name} {release}", image, folder / "modules", debian.headers_in(folder))


def build(name, jobs, patches=()):
    """Builds a kernel from Debian's source. About nine minutes of two cores; twice that for debug and races. One
    with patches is kept beside the other, as NAME-patched."""
    kept = cache_folder() / (f"{name}-patched" if patches else name)
    with scratch() as work:
        package = debian.download(SOURCE, work)
        run(["dpkg-deb", "-x", package, work / "root"])
        archive = next((work / "root").rglob("linux-source-*.tar.xz"))
        run(["tar", "-C", work, "-xf", archive])
        tree = next(work.glob("linux-source-*/"))
        apply(patches, tree)
        options = work / "options"
        options.write_text("".join((FOLDER / file).read_text() for file in BUILT[name]))
        run(["make", "-C", tree, "allnoconfig"], env={"KCONFIG_ALLCONFIG": str(options)})
        check_config(tree / ".config", options)
        has_modules = "CONFIG_MODULES=y" in (tree / ".config").read_text()
        run(["make", "-C", tree, f"-j{jobs}", "bzImage", *(["modules"] if has_modules else [])])
        if has_modules:
            keep_headers(tree, kept / "headers")
        replace(tree / "arch/x86/boot/bzImage", kept / "bzImage")
    return find(kept / "bzImage" if patches else name)


def apply(patches, tree):
    """Applies them in this order, each whole: no hunk is placed by guessing. Raises Unavailable."""
    for patch in patches:
        run(["patch", "-d", tree, "-p1", "--forward", "--fuzz=0", "-i", patch.resolve()])


def keep_headers(tree, kept):
    """What external modules are built with, by the kernel's own script for packages."""
    run(["make", "-C", tree, "run-command",
         f"KBUILD_RUN_COMMAND=$(srctree)/scripts/package/install-extmod-build {tree.parent / 'headers'}"])
    replace(tree.parent / "headers", kept)


def check_config(made, options):
    """Kconfig drops what it does not know or what lacks a dependency without a word."""
    lines = set(made.read_text().splitlines())
    wanted = [line for line in options.read_text().splitlines() if line.endswith("=y")]
    missing = [line for line in wanted if line not in lines]
    if missing:
        raise Unavailable("the kernel's configuration rejected: " + " ".join(missing))
