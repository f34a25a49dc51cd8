#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`moat run --device nic` with Debian's dpdk-testpmd: packets around the card's loop, and what is found.

Usage: testpmd_test.py MOAT
"""
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/vm"))
import probe
import testpmd

MOAT = sys.argv[1]
# No huge pages, and no other device: DPDK sees only the private /sys of `moat run`.
EAL = ("-l", "0-1", "--no-huge", "-m", "64", "--iova-mode=va", "--no-shconf", "--no-telemetry")
PORT = ("--no-lsc-interrupt", "--total-num-mbufs=4096", "--tx-first", "--burst=256", "--stats-period=1")
PATIENCE = 60 # seconds; an idle machine takes a few


def run_until(pattern: str, *options: str, port: tuple[str, ...] = ()) -> tuple[int, str]:
    """Ends testpmd once `pattern` was printed. Return: the exit status, and all that was printed."""
    process = subprocess.Popen([MOAT, "run", "--device", "nic", *options, "--", *testpmd.words(), *EAL, "--", *PORT,
                                *port], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True)
    watchdog = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
    watchdog.start()
    try:
        text, interrupted = "", False
        for line in process.stdout:
            text += line
            if not interrupted and re.search(pattern, line):
                os.killpg(process.pid, signal.SIGINT) # as a terminal does
                interrupted = True
        status = process.wait()
    finally:
        watchdog.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
    if not interrupted:
        raise AssertionError(f"never printed {pattern!r}:\n{text}")
    return status, re.sub(r"\n  +", " ", text) # the summary without its line breaks


class NetworkCard(unittest.TestCase):
    def test_loops_a_million_packets_without_a_finding(self):
        status, text = run_until(r"RX-packets: \d{7}")
        self.assertEqual(status, 0, text)
        self.assertIn("moat run: no finding", text)
        self.assertIn("net_virtio (1af4:1041)", text)
        forwarded = text.split("Forward statistics for port 0")[1]
        self.assertRegex(forwarded, r"RX-packets: \d{7,} +RX-dropped: 0 ")
        self.assertRegex(forwarded, r"TX-packets: \d{7,} +TX-dropped: 0 ")
        self.assertNotIn("cannot read", text, "EAL reads each file of /sys")

    def test_finds_that_the_card_loses_the_upper_half_of_addresses(self):
        status, text = run_until("SUMMARY: moat: ", "--inject", "truncated", "--after", "1000")
        self.assertEqual(status, 1, text)
        self.assertRegex(text, r"ERROR: moat: dma-[a-z-]+ on IOVA 0x[0-9a-f]{1,8} by device nic")

    def test_says_that_a_stray_inside_the_heap_cannot_be_seen(self):
        status, text = run_until(r"RX-packets: \d{4}", "--inject", "read-only")
        self.assertEqual(status, 0, text)
        self.assertRegex(text, r"the device did wrong [0-9,]+ times \(read-only\); none of it left the program's")

    def test_finds_the_pool_that_testpmd_itself_leaves_unmapped(self):
        # Without huge pages DPDK maps no memory that is added later, and testpmd goes on.
        status, text = run_until("SUMMARY: moat: dma-wild-access: read by 0000:05:00.0", port=("--mp-alloc=anon",))
        self.assertEqual(status, 1, text)
        stack = text.split("last register write by thread")[1].split("\n\n")[0]
        self.assertIn("librte_net_virtio", stack)


if __name__ == "__main__":
    if reason := probe.reason_without("testpmd"):
        print(f"SKIPPED: {reason}")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
