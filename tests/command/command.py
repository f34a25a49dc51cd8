# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Shared by the tests of the command: a run of it, a terminal, and a made-up host's sysfs."""
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import struct
import subprocess
import termios
import threading

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}


def run(moat: str, *words: str, **more) -> subprocess.CompletedProcess:
    more.setdefault("env", ENVIRONMENT)
    return subprocess.run([moat, *words], capture_output=True, text=True, timeout=60, check=False,
                          **more)


@contextlib.contextmanager
def serving(moat: str, socket: pathlib.Path):
    """The machine "vfio-user:SOCKET" of a soft NVMe controller."""
    server = subprocess.Popen([moat, "serve", "--device", "nvme", "--socket", socket], env=ENVIRONMENT,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        server.stdout.readline()
        yield f"vfio-user:{socket}"
    finally:
        server.kill()
        server.communicate()


def on_terminal(words: list[str], stream: str, columns: int = 0, **environment: str) -> str:
    """The output on a terminal of one stream, "stdout" or "stderr"; the other one is discarded.

    A terminal of 0 columns reports no size.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, **streams,
                               env={**ENVIRONMENT, "TERM": "xterm", **environment})
    end = b"\0" # a terminal whose last writer is gone may lose what was not yet read: stay a writer
    ended = threading.Thread(target=lambda: (process.wait(), os.write(theirs, end)))
    ended.start()
    killer = threading.Timer(60, process.kill)
    killer.start()
    text = b""
    while not text.endswith(end):
        text += os.read(ours, 65536)
    killer.cancel()
    ended.join()
    os.close(theirs)
    os.close(ours)
    return text.removesuffix(end).decode()


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


def make_guard(root: pathlib.Path) -> list[str]:
    """A host with moat_guard loaded, which guards its function; the option that names it."""
    sysfs = make_sysfs(root / "sys")
    parameters = sysfs / "module/moat_guard/parameters"
    parameters.mkdir(parents=True)
    for name, text in {"size": "4", "budget": "50", "devices": ""}.items():
        (parameters / name).write_text(text + "\n")
    state = sysfs / "kernel/debug/moat_guard/state"
    state.parent.mkdir(parents=True)
    state.write_text("moat_guard 1\ndevice 0000:00:04.0 domain=3 guard_bytes=4096 since_us=2000000 held_pages=512 "
                     "limit_pages=1048576 before=20 padded=1234 plain=1 over_budget=2 restored=700 "
                     "missed=0\n")
    (root / "dev").mkdir()
    (root / "dev/kmsg").write_text("3,1,3000000,-;DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr "
                                   "0x1000 [fault reason 0x05] PTE Write access is not set\n")
    return ["--root", str(root)]
