# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the tests of the command share: running it, and a host's sysfs that is made up."""
import os
import pathlib
import re
import subprocess

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}


def run(moat: str, *words: str, **more) -> subprocess.CompletedProcess:
    more.setdefault("env", ENVIRONMENT)
    return subprocess.run([moat, *words], capture_output=True, text=True, timeout=60, check=False,
                          **more)


def commands_of(moat: str, *path: str) -> list[str]:
    """The subcommands that `moat PATH --help` lists."""
    text = run(moat, *path, "--help").stdout
    below = text.partition("Subcommands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  ([a-z-]+) ", below, re.MULTILINE)


def all_paths(moat: str, *path: str) -> list[tuple[str, ...]]:
    """Every command, as its words; the empty one is moat itself."""
    found = [path]
    for name in commands_of(moat, *path):
        found += all_paths(moat, *path, name)
    return found


def make_sysfs(root: pathlib.Path, address: str = "0000:00:04.0") -> pathlib.Path:
    """A host with one function, which vfio-pci has."""
    pci = root / "bus/pci"
    device = pci / "devices" / address
    device.mkdir(parents=True)
    for name, text in {"vendor": "0x8086", "device": "0x10d3", "class": "0x020000",
                       "numa_node": "0", "driver_override": "vfio-pci",
                       "resource": "0x800000000 0x8ffffffff 0x14220c"}.items():
        (device / name).write_text(text + "\n")
    (device / "iommu_group").symlink_to("../groups/7")
    driver = pci / "drivers/vfio-pci"
    driver.mkdir(parents=True)
    for name in ("bind", "unbind"):
        (driver / name).write_text("")
    (device / "driver").symlink_to("../../drivers/vfio-pci")
    (pci / "drivers_probe").write_text("")
    return root
