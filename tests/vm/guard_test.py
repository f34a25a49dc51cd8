#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""guard_test.py KERNEL MOAT: guards the mappings of the kernel's drivers with moat_guard, and loads, unloads
and sets the module under load. One boot with one processor: the facts of reloading on an emulator are in
docs/testing.md. Exit status 77 where a probe of scripts/vm/probe.py fails, with its name."""
import json
import os
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
EDU = "0000:00:04.0"
SOURCES = ("kernel/moat_guard", "tests/watch/module", "tests/guard/module")
RELOADS = int(os.environ.get("MOAT_VM_RELOADS", "6"))
PAGE = 4096
# Pages of mappings and of guards. Linux tells where each mapping of a size begins, so how many pages it takes.
LENGTHS = (1, 2, 3, 5, 8, 16, 31, 32, 33, 60, 100, 200, 256, 300, 500, 512, 1000, 1024, 2000, 3000, 4096)
GUARDS = (1, 16, 256)
# Each step prints lines "STEP: what it saw".
JOB = """
dmesg -n 1
cd /sys/kernel/debug
edu() { echo $1 >edu_dma && echo "$step: $1 $(cat edu_dma)"; }
traffic() { echo "$*" >guard_traffic && echo "$step: $* $(cat guard_traffic)"; }
space() { # PAGES...
    taken=
    for pages; do echo "space $pages" >guard_traffic && taken="$taken $(cat guard_traffic)"; done
    echo "$step: space$taken"
}
guard() { moat guard "$@" >/tmp/guard.txt || exit; }
status() { echo "$step: $(moat guard status --json)"; }
insmod /bin/edu_dma.ko && insmod /bin/guard_traffic.ko || exit

step=unloaded; status; space {padded} # while the address space is in one piece
for pages in {guards}; do
    guard on --module /bin/moat_guard.ko --device 00:04.0 --size $((pages * 4))K
    step=space$pages; space {lengths}
done
rmmod moat_guard || exit
step=unloaded; edu neighbour_overrun; traffic hold 0; traffic drop 0; edu cost
step=loaded; guard on --module /bin/moat_guard.ko --device 00:04.0; guard off; edu cost
step=off; status
step=on; guard on --device edu_dma --size 4K
edu neighbour_overrun; edu coherent_overrun; edu list_overrun; edu correct; edu cost
traffic hold 0; status; traffic drop 0
step=story; sleep 6 # the kernel limits the rate of lines
moat watch --device edu_dma >/tmp/watch.txt 2>/tmp/watch.err & watch=$!
until grep -q 'watching;' /tmp/watch.err || ! kill -0 $watch; do sleep 0.1; done
edu neighbour_overrun
kill -INT $watch; wait $watch
sed 's/^/story: /' /tmp/watch.txt
step=before; guard off; traffic hold 0; guard on --device 00:04.0; traffic hold 1
traffic drop 0; traffic hold 0; guard off; traffic drop 1; traffic drop 0
step=narrow; guard on --device 00:04.0 --size 1M; traffic narrow; status; edu cost
step=all; guard on; status
step=text; moat guard status | sed 's/^/text: /'
step=rejected; moat guard on --device 00:1e.7 2>&1 | sed 's/^/rejected: /'
for ms in 1 5 10 15 20 25 30 40 60; do # the command ends after 30 to 40
    rmmod moat_guard || exit
    moat guard on --module /bin/moat_guard.ko --device 00:04.0 --size 8K >/tmp/guard.txt 2>&1 & killed=$!
    usleep ${ms}000; kill -9 $killed 2>/dev/null; wait $killed
    step=killed; status; edu correct
    step=after_kill; guard on --module /bin/moat_guard.ko --device 00:04.0; edu neighbour_overrun
done

head -c 262144 /dev/urandom >/tmp/data
load() { # DEVICE: until the file goes, data written and read come back equal
    rounds=0
    while [ -e /tmp/load ]; do
        dd if=/tmp/data of=/dev/$1 bs=128k oflag=direct 2>/dev/null
        dd if=/dev/$1 bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/data || exit 1
        rounds=$((rounds + 1))
        sleep 0.5 # idle time costs the emulator nothing
    done
    [ $rounds != 0 ]
}
touch /tmp/load
load nvme0n1 & nvme=$!
load sda & sda=$!
load sdb & sdb=$!
step=reload; guard on
for round in $(seq {reloads}); do
    traffic hold 0
    rmmod moat_guard || exit
    traffic hold 1; traffic drop 0; traffic hold 0; traffic drop 1
    insmod /bin/moat_guard.ko size=$((round % 3 * 4)) || exit
    traffic hold 1; traffic drop 0; traffic drop 1
done
step=settings
(while [ -e /tmp/load ]; do
    for size in 4 0 1024 8; do echo $size >/sys/module/moat_guard/parameters/size; done
    echo {edu} >/sys/module/moat_guard/parameters/devices
    echo >/sys/module/moat_guard/parameters/devices
    sleep 0.05
done) & setter=$!
traffic hold 0
for round in 1 2 3 4 5; do traffic churn; done
traffic drop 0
step=paused; sysctl -qw kernel.ftrace_enabled=0; traffic hold 0; sysctl -qw kernel.ftrace_enabled=1; traffic hold 1
traffic drop 0; traffic drop 1
rm /tmp/load
wait $nvme && wait $sda && wait $sdb && echo "load: equal"
wait $setter
step=rescan; guard on
echo 1 >/sys/bus/pci/devices/0000:00:05.0/remove; echo "gone: $(grep -c 0000:00:05.0 moat_guard/state)"
echo 1 >/sys/bus/pci/rescan; sleep 1; dd if=/dev/nvme0n1 of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null
status
rmmod moat_guard && echo "unloaded: yes"
dmesg | grep -E 'moat_guard:|WARNING|fault addr' | sed 's/^/log: /'
"""


class Failed(Exception):
    """The text says what was wrong."""


def boot(name, moat):
    """The lines of each step, by its name."""
    with tempfile.TemporaryDirectory(prefix="moat-vm-test-") as folder:
        try:
            modules = [external_module.build(kernel.find(name), ROOT / source, pathlib.Path(folder) / str(number))
                       for number, source in enumerate(SOURCES)]
        except cache.Unavailable as why:
            raise Failed(str(why)) from why
        job = JOB.replace("{reloads}", str(RELOADS)).replace("{edu}", EDU)
        for word, numbers in (("{lengths}", LENGTHS), ("{guards}", GUARDS),
                              ("{padded}", [length + guard for guard in GUARDS for length in LENGTHS])):
            job = job.replace(word, " ".join(map(str, numbers)))
        done = subprocess.run(
            [sys.executable, ROOT / "scripts/vm/vm.py", "--kernel", name, "--machine", "drivers",
             "--count-instructions", *(word for file in [*modules, moat] for word in ("--program", file)),
             "--limit", "600", "--", "sh", "-c", job],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode:
        raise Failed(f"the job ended with status {done.returncode}")
    steps = {}
    for line in done.stdout.splitlines():
        step, colon, text = line.partition(": ")
        if colon:
            steps.setdefault(step, []).append(text)
    return steps


def number(text, name):
    found = re.search(rf"\b{name} (-?\d+)", text)
    if not found:
        raise Failed(f"no {name} in {text!r}")
    return int(found.group(1))


def line(steps, step, begin):
    """The text after `begin` of the step's first line that begins so."""
    for text in steps.get(step, []):
        if text.startswith(begin):
            return text.removeprefix(begin)
    raise Failed(f"step {step} has no line {begin!r}")


def states(steps, step):
    return [json.loads(text) for text in steps.get(step, []) if text.startswith("{")]


def device(state, address=EDU):
    return next((each for each in state["devices"] if each["device"] == address), None)


def expect(condition, what):
    if not condition:
        raise Failed(what)


def check_edu(steps):
    expect(line(steps, "unloaded", "neighbour_overrun ") == "gap 0 neighbour changed", "an overrun changes nothing")
    expect(line(steps, "on", "neighbour_overrun ") == f"gap {PAGE} neighbour intact", "a guard does not protect")
    for command in ("coherent_overrun", "list_overrun", "correct"):
        line(steps, "on", command)
    story = "\n".join(steps["story"])
    expect("dma-buffer-overflow" in story and "past the end of the 4096-byte mapping" in story, "watch does not name the buffer")
    faults = [text for text in steps["log"] if "[DMA Write" in text]
    expect(len(faults) >= 2, f"{len(faults)} faults were logged")
    expect(not any("WARNING" in text for text in steps["log"]), "the kernel warns: " + "; ".join(steps["log"]))


def check_gaps(steps):
    expect(number(line(steps, "unloaded", "hold 0 "), "least_gap") == 0, "mappings are not adjacent without guards")
    expect(number(line(steps, "on", "hold 0 "), "least_gap") >= PAGE, "mappings are less than a guard apart")
    checked = 0
    for texts in steps.values():
        for text in texts:
            if "least_gap" in text:
                checked += 1
                expect(number(text, "least_gap") >= 0 and number(text, "wrong") == 0, f"overlap: {text}")
    expect(checked >= 8 * RELOADS, f"only {checked} checks of live mappings")
    expect(steps.get("load") == ["equal"], "data under load differ")


def check_states(steps):
    expect(not states(steps, "unloaded")[0]["loaded"], "loaded before it was loaded")
    expect(device(states(steps, "off")[0])["reason"] == "guards are off", "off is not shown")
    on = device(states(steps, "on")[0])
    expect(on["guarded"] and on["guard_bytes"] == PAGE and on["held_percent"] > 0 and on["before"] > 0, f"on: {on}")
    others = [each for each in states(steps, "on")[0]["devices"] if each["device"] != EDU]
    expect(others and all(each["reason"] == "not chosen" for each in others), f"others are guarded: {others}")
    expect(line(steps, "narrow", "narrow ") == "mapped 400 of 400", "maps of a narrow device fail")
    expect(device(states(steps, "narrow")[0])["over_budget"] > 100, "the budget is not counted")
    everyone = states(steps, "all")[0]["devices"]
    expect(len(everyone) >= 5 and all(each["guarded"] for each in everyone), f"all: {everyone}")
    back = states(steps, "rescan")[0]
    expect(steps["gone"] == ["0"], "the module keeps a removed device")
    expect(device(back, "0000:00:05.0")["padded"] > 0, "a rescanned device is not guarded")
    expect(any(EDU in text for text in steps["text"]), "the table lacks the device")
    expect("unknown device" in steps["rejected"][0], "an unknown device is accepted")
    expect(steps.get("unloaded", [])[-1] == "yes", "the module does not unload")


def check_killed(steps):
    """`moat guard on` sets the size last, so a kill leaves no guards or those that were asked for."""
    left = [(state["loaded"], state["size_kib"], [each["device"] for each in state["devices"] if each["guarded"]])
            for state in states(steps, "killed")]
    print(f"states after kill -9: {left}")
    expect(set(map(str, left)) <= {str((False, 0, [])), str((True, 0, [])), str((True, 8, [EDU]))}, f"killed: {left}")
    expect(len(left) >= 9 and left[0] != left[-1], "no kill came early, or none came late")
    after = [text for text in steps["after_kill"] if text.startswith("neighbour_overrun")]
    expect(len(after) == len(left) and all("neighbour intact" in text for text in after), f"after a kill: {after}")


def check_space(steps):
    """A mapping takes no more pages than those of the RFC's patch, which adds the guard to each length, if its user
    chose the best guard that is at most a quarter smaller. The patch's are measured: as plain mappings."""
    plain = iter(map(int, line(steps, "unloaded", "space ").split()))
    print("pages of guard, of mapping: taken, by the RFC's patch, by its best guard")
    for guard in GUARDS:
        for length, taken in zip(LENGTHS, map(int, line(steps, f"space{guard}", "space ").split()), strict=True):
            patch = next(plain)
            best = 1 << (length + guard - guard // 4 - 1).bit_length()
            print(f"{guard:4} {length:5}: {taken:5} {patch:5} {best:5}")
            expect(length < taken <= min(patch, best * 5 // 4), f"{length} pages with {guard} of guard take {taken}")
    expect(next(plain, None) is None, "lengths are missing")


def check_costs(steps):
    cost = {}
    for step, what in (("unloaded", "without the module"), ("loaded", "guards off"), ("on", "guards of 4 KiB"),
                       ("narrow", "guards of 1 MiB")):
        cost[step] = number(line(steps, step, "cost "), "ns_per_pair")
        percent = 100 * cost[step] / cost["unloaded"] - 100
        print(f"instructions of a map and unmap, {what}: {cost[step]} (+{percent:.1f} %)")
    expect(cost["loaded"] <= cost["unloaded"] * 1.10, "guards that are off cost more than 10 %")
    expect(cost["on"] <= cost["unloaded"] * 1.16, "guards of 4 KiB cost more than 16 %")


def main():
    name, moat = sys.argv[1], pathlib.Path(sys.argv[2])
    reason = probe.reason_to_skip(name)
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    try:
        steps = boot(name, moat)
        check_costs(steps)
        check_space(steps)
        check_killed(steps)
        check_edu(steps)
        check_gaps(steps)
        check_states(steps)
    except Failed as why:
        print(f"FAILED: {why}")
        return 1
    return 0


sys.exit(main())
