#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A fake QEMU that misbehaves as its argument `--fake=...` selects."""
import os
import re
import signal
import sys
import time

line = " ".join(sys.argv)
mode = re.search(r"--fake=(\S+)", line)[1]
socket = int(re.search(r"id=qtest,fd=(\d+)", line)[1])
print("fake: " + mode, file=sys.stderr, flush=True)

if mode == "exits":
    sys.exit(3)
if mode == "hangs":
    time.sleep(3600)
if mode == "floods":
    try:
        for _ in range(1 << 16):
            os.write(2, b"x" * 4096)
    except OSError:
        pass
    sys.exit(4)

answers = {
    "garbage": lambda verb: b"\x00\xffnonsense\n",
    "refuses": lambda verb: b"FAIL Unknown command\n",
    "endless": lambda verb: b"OK" * 100000,
    "no-value": lambda verb: b"OK\n",
    "too-wide": lambda verb: b"OK 0x123456789012345678\n" if verb[0] in "ri" else b"OK\n",
    # Every register has this value: a bus full of devices, or values without meaning.
    "zeros": lambda verb: b"OK 0x0\n" if verb[0] in "ri" else b"OK\n",
    "bridges": lambda verb: b"OK 0x10001\n" if verb[0] in "ri" else b"OK\n",
    "dies": lambda verb: b"OK 0xffffffff\n" if verb[0] in "ri" else b"OK\n",
}
seen = 0
waiting = b""
while True:
    piece = os.read(socket, 4096)
    if not piece:
        sys.exit(0)
    waiting += piece
    *commands, waiting = waiting.split(b"\n")
    for command in commands:
        seen += 1
        if mode == "dies" and seen == 10:
            os.kill(os.getpid(), signal.SIGABRT)
        os.write(socket, answers[mode](command.decode()))
