#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""watch_cost_test.py KERNEL MOAT: prints the instructions of a map and unmap of one page, and how many
more `moat watch` makes of them. QEMU's clock counts the instructions."""
import re
import sys

import guest_run
from guest_run import Failed

# What is watched, by its cost in ascending order.
WATCHES = {
    "other": "--device nvme",
    "all": "",
    "events": "--device 00:04.0",
    "stacks": "--device 00:04.0 --stacks",
}
JOB = """
cost() { # NAME
    echo cost >/sys/kernel/debug/edu_dma && cat /sys/kernel/debug/edu_dma >$1.cost
}
watched() { # NAME OPTION...
    name=$1; shift
    moat watch --json "$@" >$name.json 2>$name.err &
    watch=$!
    until grep -q 'watching;' $name.err || ! kill -0 $watch 2>/dev/null; do sleep 0.1; done
    cost $name
    kill $watch
    wait $watch
}
insmod /bin/edu_dma.ko || exit
cost first
cost plain
WATCHES
"""
COST = re.compile(r"pairs \d+ ns_per_pair (\d+)")
# Of the plain pair, when it was measured on 6.12.
PLAIN = 1926


def test(name, moat):
    job = JOB.replace("WATCHES", "\n".join(f"watched {each} {words}" for each, words in WATCHES.items()))
    files = guest_run.run(name, [moat], job, 170, ["--count-instructions"])
    costs = {each: int(COST.fullmatch(files[f"{each}.cost"][0]).group(1)) for each in ("plain", *WATCHES)}
    print(f"instructions of a map and unmap: {costs['plain']}")
    for each, words in WATCHES.items():
        print(f"  moat watch {words or 'of all devices'}: {costs[each] - costs['plain']:+}")
    if not PLAIN // 2 < costs["plain"] < PLAIN * 2:
        raise Failed(f"{costs['plain']} instructions are no count of a map and unmap (about {PLAIN})")
    if sorted(costs.values()) != list(costs.values()):
        raise Failed(f"the costs have another order: {costs}")


sys.exit(guest_run.main(sys.argv[1], lambda: test(*sys.argv[1:3])))
