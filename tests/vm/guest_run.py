# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""For tests with the kernel's drivers: a boot with tests/watch/module and moat, and the files that its
job leaves."""
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/vm"))
import cache  # noqa: E402
import external_module  # noqa: E402
import kernel  # noqa: E402
import probe  # noqa: E402

SKIPPED = 77
# The files come over the console when no line of the kernel's gets between.
PRINT_FILES = """
dmesg -n 1
sleep 1
for file in *.*; do while read -r line; do echo "@$file $line"; done <$file; done
"""
LINE = re.compile(r"@(\S+) ?(.*)")


class Failed(Exception):
    """The text says what was wrong."""


def build(name, sources, folder):
    """A module's file, built in the folder for the kernel. Raises Failed."""
    try:
        return external_module.build(kernel.find(name), sources, folder)
    except cache.Unavailable as why:
        raise Failed(str(why)) from why


def run(name, programs, job, limit, options=()):
    """Boots the kernel with the programs and the module /bin/edu_dma.ko; runs the job. Returns the files
    with a dot in their names that it left in its folder, as lists of lines."""
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        module = build(name, ROOT / "tests/watch/module", pathlib.Path(folder))
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/vm/vm.py", "--kernel", name, "--machine", "drivers",
             *(word for program in [module, *programs] for word in ("--program", program)),
             "--limit", str(limit), *options, "--", "sh", "-c",
             f"(\n{job})\nstatus=$?\n{PRINT_FILES}exit $status"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode:
        raise Failed(f"the job ended with status {done.returncode}")
    files = {}
    for line in done.stdout.splitlines():
        found = LINE.fullmatch(line)
        if found:
            files.setdefault(found.group(1), []).append(found.group(2))
    return files


def main(name, test):
    """Exit status: 77 with the reason where the kernel cannot be run, 1 where the test fails."""
    reason = probe.reason_to_skip(name)
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    try:
        test()
    except (Failed, AssertionError) as why:
        print(f"FAILED: {why}")
        return 1
    return 0
