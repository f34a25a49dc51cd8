#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""moat replay: findings, policies, reduction, and files that are cut, damaged or hostile.

Recordings are encoded here from docs/recording_format.md alone. Usage: replay_test.py MOAT, in the
project's folder.
"""
import json
import pathlib
import re
import sys
import tempfile
import zlib

import command

RECORDING = pathlib.Path("tests/watch/data/overrun.rec")
MAP, UNMAP, FAULT = 1, 2, 6


def number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


class Recording:
    """Writes each event with texts and a site of its own."""

    def __init__(self):
        self.checked = self.file = b"moatrec\x01"
        self.texts = self.sites = self.last_time = self.last_start = 0

    def record(self, body: bytes) -> None:
        framed = number(len(body)) + body
        self.checked += framed
        self.file += framed + bytes([zlib.crc32(self.checked) & 0xFF])

    def difference(self, field: str, value: int) -> bytes:
        delta = value - getattr(self, field)
        setattr(self, field, value)
        return number(2 * delta if delta >= 0 else -2 * delta - 1)

    def event(self, kind: int, device: str, time: int, start: int, size: int, call="map") -> None:
        for text in (device, call):
            self.record(number(0) + number(len(text)) + text.encode())
        self.texts += 2
        has = 8 if kind == FAULT else 1
        self.record(bytes([3, kind, has, 3]) + number(0) + number(self.texts - 1) + number(0) +
                    number(self.texts) + number(0) + number(0))
        if kind == FAULT:  # a write of a page by 0000:00:04.0
            fields = bytes([1, 1]) + number(0x20) + bytes([2, 3, 1]) + \
                number(start) + number(size) + number(0) + number(0)
        else:
            fields = number(0) + self.difference("last_start", start) + number(size)
        self.record(number(8 + self.sites) + self.difference("last_time", time) + fields)
        self.sites += 1


def small_recording(device="0000:00:04.0", call="map") -> Recording:
    made = Recording()
    for index in range(8):
        made.event(MAP, device, 1000 * index, 0x10000 * (index + 1), 0x1000, call)
    made.event(FAULT, device, 9000, 0x41000, 0x1000, call)
    made.event(UNMAP, device, 9500, 0x10000, 0x1000, call)
    return made


class Test:
    def __init__(self, moat: str, folder: pathlib.Path):
        self.moat, self.folder, self.wrong = moat, folder, []

    def expect(self, holds, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def run(self, status: int, *words: str, error: str = ""):
        done = command.run(self.moat, "replay", *words)
        self.expect(done.returncode == status, f"{words}: exit status {done.returncode}: {done}")
        self.expect(re.search(error, done.stderr) if error else not done.stderr,
                    f"{words}: on standard error: {done.stderr!r}, not {error!r}")
        return done.stdout

    def file(self, content: bytes) -> str:
        path = self.folder / "recording"
        path.write_bytes(content)
        return str(path)

    def findings(self) -> None:
        text = self.run(1, str(RECORDING))
        self.expect("SUMMARY: moat: dma-buffer-overflow: write by 0000:00:04.0, 1 to 4096 bytes past "
                    'the end of "nvme: dma_map_page"' in text, f"no overflow in {text}")
        self.expect("nvme_prep_rq+0x4cb [nvme]" in text, "no symbol of the stack")
        text = self.run(1, str(RECORDING), "--device", "0000:00:05.0")
        self.expect("dma-use-after-unmap" in text and "nvme" not in text, f"--device: {text}")
        text = self.run(0, self.file(Recording().file))
        self.expect(text.startswith("No fault was recorded.\n0 events"), f"an empty one: {text}")

    def policies(self) -> None:
        recording = self.file(small_recording().file)
        lines = [json.loads(line) for line in
                 self.run(1, recording, "--guard", "4k", "--json").splitlines()]
        self.expect([line["guard"] for line in lines] == [0, 4096], f"policies: {lines}")
        without, guarded = (line["exposure"] for line in lines)
        self.expect(without["adjacent_pairs"] == 7 and without["faults_silent"] == 1,
                    f"without a guard: {without}")
        self.expect(guarded["adjacent_pairs"] == 0 and guarded["faults_attributed"] == 1,
                    f"with a guard: {guarded}")
        text = self.run(1, recording, "--quarantine", "1m", "--placement", "left")
        self.expect("policy: guard 0, quarantine 1M, placed left\n" in text, text)
        self.run(2, recording, "--guard", "much", error='--guard: "much" is not a size')
        self.run(2, recording, "--placement", "middle", error="--placement: middle not in")

    def reduction(self) -> None:
        out = str(self.folder / "reduced")
        for fault, kind in ((1, "dma-buffer-overflow"), (2, "dma-use-after-unmap")):
            text = self.run(1, str(RECORDING), "--reduce", out, "--fault", str(fault))
            self.expect(re.search(rf"Fault {fault} needs [34] of 317 events: {out}\n\Z", text), text)
            whole = [line for line in text.splitlines() if line.startswith(f"SUMMARY: moat: {kind}")]
            few = [line for line in self.run(1, out).splitlines() if line.startswith("SUMMARY")]
            self.expect(whole == few != [], f"reduced to {few}, not {whole}")
        self.run(3, str(RECORDING), "--reduce", out, "--fault", "3", error="no fault of this number")

    def broken_files(self) -> None:
        self.run(3, str(self.folder / "nothing"), error="cannot open")
        self.run(3, self.file(b"a log"), error="no recording of moat")
        self.run(3, self.file(b"moatrec\x02"), error="a newer moat")
        whole = small_recording().file
        self.run(1, self.file(whole[:-1]), error="ends within a record: ignored 10 bytes")
        damaged = bytearray(whole)
        damaged[-1] ^= 1
        text = self.run(1, self.file(damaged), error="only the 9 events before it are known")
        self.expect("dma-buffer-overflow" in text, "no finding before the damage")
        damaged = bytearray(Recording().file + b"\x03\x00\x01a")
        self.run(3, self.file(damaged + b"x"), error="check byte is wrong")

    def hostile_texts(self) -> None:
        text = self.run(1, self.file(small_recording("0000:00:04.0", "\x1b]0;x\x07").file))
        self.expect("\x1b" not in text and "\x07" not in text, f"control characters: {text!r}")
        self.run(0, self.file(small_recording("\x1b[2J").file), "--device", "x")

    def audits(self) -> None:
        recording = str(self.folder / "audit")
        command.run(self.moat, "audit", "--device", "nvme", "--device", "edu", "--inject", "overrun",
                    "--operations", "20", "--record", recording)
        text = self.run(1, recording)
        self.expect("SUMMARY: moat: dma-buffer-overflow: write by" in text and
                    " nvme: " in text and " edu: " in text, f"of an audit: {text}")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        test = Test(sys.argv[1], pathlib.Path(folder))
        test.findings()
        test.policies()
        test.reduction()
        test.broken_files()
        test.hostile_texts()
        test.audits()
    print("\n".join(test.wrong) if test.wrong else "replay")
    return 1 if test.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
