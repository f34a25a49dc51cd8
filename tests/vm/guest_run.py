# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""For tests with the kernel's drivers: a boot with tests/watch/module and moat, and the files that its
job leaves."""
import os
import pathlib
import re
import shutil
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
LOAD_SECONDS = int(os.environ.get("MOAT_VM_LOAD_SECONDS", "10"))
LOADED = ("nvme0n1", "sda", "sdb", "network")
# put_load SECONDS: data written to the disks and sent to the network come back equal, or the job ends.
LOAD = """
load_disk() { # DEVICE
    rounds=0
    until [ $rounds != 0 ] && [ $(date +%s) -ge $end ]; do
        head -c 1048576 /dev/urandom >$1.data
        dd if=$1.data of=/dev/$1 bs=128k oflag=direct 2>/dev/null
        dd if=/dev/$1 bs=64k count=16 iflag=direct 2>/dev/null | cmp - $1.data || exit 1
        rounds=$((rounds + 1))
    done
    rm $1.data
    echo $rounds >>load_$1.rounds
}
load_network() {
    rounds=0
    head -c 262144 /dev/urandom >network.data
    until [ $rounds != 0 ] && [ $(date +%s) -ge $end ]; do
        timeout 20 nc 10.0.2.100 7 <network.data | cmp - network.data || exit 1
        rounds=$((rounds + 1))
    done
    rm network.data
    echo $rounds >>load_network.rounds
}
put_load() {
    until [ -b /dev/nvme0n1 ] && [ -b /dev/sda ] && [ -b /dev/sdb ]; do sleep 0.1; done
    ifconfig eth0 10.0.2.15 up || exit
    end=$(($(date +%s) + $1)) loads=
    for disk in nvme0n1 sda sdb; do load_disk $disk & loads="$loads $!"; done
    load_network & loads="$loads $!"
    for load in $loads; do wait $load || exit; done
}
"""
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


def build_broken(name, sources, folder, place, right, wrong):
    """The same with one line wrong: place is its source, right and wrong the line's texts. The file is
    broken.ko. Raises Failed."""
    copy = shutil.copytree(sources, folder / "broken")
    text = (copy / place).read_text()
    if text.count(right) != 1:
        raise Failed(f"{place} has {text.count(right)} places to break: {right}")
    (copy / place).write_text(text.replace(right, wrong))
    built = build(name, copy, folder / "built")
    return built.rename(built.with_name("broken.ko"))


def run(name, programs, job, limit, options=(), machine="drivers"):
    """Boots the kernel with the programs and the module /bin/edu_dma.ko; runs the job. Returns the files
    with a dot in their names that it left in its folder, as lists of lines."""
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        module = build(name, ROOT / "tests/watch/module", pathlib.Path(folder))
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/vm/vm.py", "--kernel", name, "--machine", machine,
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


def check_load(files, times=1):
    """Each part of the load did something, each time."""
    for part in LOADED:
        rounds = files[f"load_{part}.rounds"]
        if len(rounds) != times or "0" in rounds:
            raise Failed(f"rounds of the load of {part}: {rounds}")


def main(name, test, needs=()):
    """Exit status: 77 with the reason where the kernel cannot be run or a further probe fails, 1 where the
    test fails."""
    reason = probe.reason_to_skip(name, needs)
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    try:
        test()
    except (Failed, AssertionError) as why:
        print(f"FAILED: {why}")
        return 1
    return 0
