#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""libmoat-run.so under a small VFIO program, and under programs of Debian that use VFIO.

Usage: preload_test.py LIBRARY CLIENT CLIENT_LIBRARY
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

LIBRARY, CLIENT, CLIENT_LIBRARY = sys.argv[1:4]
DEVICE = "0000:05:00.0"
GROUP = 0x500


class Folder:
    """The files that programs read, as the command makes them, for one device."""

    def __init__(self, kind: str, more: str = ""):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="moat-preload-"))
        device = self.path / "sys/bus/pci/devices" / DEVICE
        group = self.path / f"sys/kernel/iommu_groups/{GROUP}/devices"
        for folder in (device, group, self.path / "sys/module/vfio_pci", self.path / "dev/vfio"):
            folder.mkdir(parents=True)
        (device / "vendor").write_text("0x1234\n")
        (device / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{GROUP}")
        (self.path / "tally").write_bytes(bytes(4096))
        (self.path / "findings").write_text("")
        self.environment = {**os.environ, "LD_PRELOAD": LIBRARY, "CLIENT_LIBRARY": CLIENT_LIBRARY,
                            "MOAT_RUN": f"device {kind}@{DEVICE}\n{more}redirect \n"
                                        f"folder {self.path}\n"}

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True,
                              timeout=120, check=False)

    def remove(self) -> None:
        shutil.rmtree(self.path)


def client_cases() -> list[str]:
    return subprocess.run([CLIENT, "--list"], capture_output=True, text=True,
                          check=True).stdout.split()


class Preload(unittest.TestCase):
    def with_folder(self, kind: str, more: str = "") -> Folder:
        folder = Folder(kind, more)
        self.addCleanup(folder.remove)
        return folder

    def test_every_interposed_function_is_called_by_a_case(self):
        table = subprocess.run(["nm", "-D", "--defined-only", LIBRARY], capture_output=True,
                               text=True, check=True).stdout
        interposed = {line.split()[2] for line in table.splitlines()}
        self.assertIn("ioctl", interposed)
        self.assertEqual(interposed - set(client_cases()), set())

    def test_each_case_of_the_client(self):
        cases = client_cases()
        self.assertGreater(len(cases), 70)
        folder = self.with_folder("edu")
        for case in cases:
            with self.subTest(case):
                ended = folder.run(CLIENT, case)
                self.assertEqual(ended.returncode, 0, ended.stderr)
                if case not in ("stray", "forked", "memory_gone"):
                    self.assertEqual(ended.stderr, "")

    def test_a_stray_access_is_reported_with_the_programs_stack(self):
        folder = self.with_folder("edu")
        ended = folder.run(CLIENT, "stray")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("ring_for_unmapped", ended.stderr)

    def test_memory_that_is_gone_is_reported(self):
        folder = self.with_folder("edu")
        ended = folder.run(CLIENT, "memory_gone")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(ended.stderr.count("dma-memory-gone"), 2, ended.stderr)

    def test_without_options_nothing_changes(self):
        folder = self.with_folder("edu")
        del folder.environment["MOAT_RUN"]
        ended = folder.run("cat", "/dev/null")
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_bad_options_end_the_program_with_a_line(self):
        folder = self.with_folder("edu")
        folder.environment["MOAT_RUN"] = "device toaster"
        ended = folder.run("cat", "/dev/null")
        self.assertEqual(ended.returncode, 2)
        self.assertIn("toaster", ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1)


@unittest.skipUnless(shutil.which("qemu-img") and shutil.which("qemu-io"), "no qemu-utils")
class Qemu(unittest.TestCase):
    DISK = f"nvme://{DEVICE}/1"

    def setUp(self):
        self.folder = Folder("nvme")
        self.addCleanup(self.folder.remove)

    def run_well(self, *command: str) -> str:
        ended = self.folder.run(*command)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertNotIn("moat", ended.stderr)
        return ended.stdout

    def test_info_shows_the_disk(self):
        self.assertIn("64 MiB", self.run_well("qemu-img", "info", self.DISK))

    def test_patterns_are_read_as_written(self):
        told = self.run_well("qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 1M",
                             "-c", "read -P 0x5a 0 1M", "-c", "write -z 64k 64k",
                             "-c", "read -P 0 64k 64k", "-c", "read -P 0x5a 128k 64k",
                             "-c", "discard 0 64k", "-c", "flush", self.DISK)
        self.assertNotIn("failed", told)
        self.assertEqual(told.count("read 65536/65536"), 2)

    def test_convert_and_bench_complete(self):
        image = self.folder.path / "image"
        image.write_bytes(os.urandom(64 << 20))
        self.run_well("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(image), self.DISK)
        told = self.run_well("qemu-img", "bench", "-c", "500", "-s", "4096", "-f", "raw", self.DISK)
        self.assertIn("Run completed", told)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
