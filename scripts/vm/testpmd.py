# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""DPDK's testpmd of this host's Debian, beside the kernels in the cache: its package and the libraries that
it loads are unpacked, none is installed. dpdk-dev would install some 200 packages, systemd among them."""

import re
import shutil
import subprocess

from cache import Unavailable, cache_folder, replace, run, scratch

PACKAGE = "dpdk-dev"
DRIVERS = re.compile(r"librte-(?:net-virtio|mempool-ring)\d+") # which libdpdk-dev names
FOLDER = "testpmd"
LIBRARY = re.compile(r"lib|ibverbs-providers$") # which provides libmlx5-1
# The host's: two of them in one program would not work.
OF_HOST = re.compile(r"lib(?:c6|gcc-s1|stdc\+\+6|crypt1)$|.*-dev$")


def words():
    """What runs it, up to its own arguments. Raises Unavailable."""
    installed = shutil.which("dpdk-testpmd")
    return [installed] if installed else unpacked(find())


def unpacked(root):
    libraries = libraries_in(root)
    drivers = next((libraries / "dpdk").glob("pmds-*"))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(root / "usr/bin/dpdk-testpmd"), "-d", str(drivers)]


def find():
    """Its folder in the cache; fetched where there is none. Raises Unavailable."""
    root = cache_folder() / FOLDER
    mark = root / "ready"
    if mark.is_file() and mark.read_text() == suite():
        return root
    if not shutil.which("apt-get"):
        raise Unavailable("dpdk-testpmd is not installed, and there is no apt-get to fetch it")
    with scratch() as work:
        (work / "packages").mkdir()
        run(["apt-get", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download", *packages()],
            cwd=work / "packages")
        for package in sorted((work / "packages").glob("*.deb")):
            run(["dpkg-deb", "-x", package, work / "root"])
        require_libraries(work / "root")
        (work / "root/ready").write_text(suite())
        replace(work / "root", root)
    return root


def packages():
    """The package, the drivers, and the libraries that they depend on, but for those of the host."""
    fresh = {PACKAGE, *DRIVERS.findall(depends_of({"libdpdk-dev"}))}
    found = set()
    while fresh:
        found |= fresh
        named = {re.split(r"[ (:]", part.strip())[0] for part in re.split(r"[,|]", depends_of(fresh))}
        fresh = {name for name in named if LIBRARY.match(name) and not OF_HOST.match(name)} - found
    return sorted(found)


def depends_of(names):
    """The dependencies of all of them, separated by commas."""
    shown = run(["apt-cache", "show", "--no-all-versions", *sorted(names)], stdout=subprocess.PIPE).stdout
    return ",".join(line.split(":", 1)[1] for line in shown.splitlines()
                    if line.startswith(("Depends:", "Pre-Depends:")))


def require_libraries(root):
    done = run(["ldd", root / "usr/bin/dpdk-testpmd"], env={"LD_LIBRARY_PATH": str(libraries_in(root))},
               stdout=subprocess.PIPE)
    missing = [line.split()[0] for line in done.stdout.splitlines() if "not found" in line]
    if missing:
        raise Unavailable(f"the packages of dpdk-testpmd lack {', '.join(missing)}")


def libraries_in(root):
    return next(root.glob("usr/lib/*/librte_eal.so.*")).parent


def suite():
    """Another one's would not fit to the host's libraries."""
    with open("/etc/os-release", encoding="utf-8") as release:
        return release.read()
