#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`moat run` with Debian's qemu-img and qemu-io: what it prints, its exit status, its files.

Usage: command_test.py MOAT
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

MOAT = sys.argv[1]
DISK = "nvme://0000:05:00.0/1"
INFO = ("qemu-img", "info", DISK)
NOBODY = 65534


def run(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([MOAT, "run", *words], capture_output=True, text=True, timeout=60, check=False, **more)


class Run(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="moat-run-test-")
        self.addCleanup(self.folder.cleanup)

    def file(self, name: str) -> pathlib.Path:
        return pathlib.Path(self.folder.name) / name

    def assert_clean(self, done: subprocess.CompletedProcess) -> None:
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("moat run: no finding", done.stderr)
        self.assertNotIn("ERROR", done.stderr)
        self.assertNotIn("never taken", done.stderr)

    def test_shows_the_disk_with_mounted_and_with_redirected_paths(self):
        for paths in ("auto", "redirect"):
            done = run("--paths", paths, "--device", "nvme,size=1G", "--", *INFO)
            self.assert_clean(done)
            self.assertIn("1 GiB", done.stdout)

    def test_serves_an_ordinary_user(self):
        if os.geteuid() == 0:
            self.file("x").parent.chmod(0o755)
            self.assert_clean(run("--", *INFO, user=NOBODY, group=NOBODY, extra_groups=[],
                                  env={**os.environ, "HOME": "/", "TMPDIR": "/tmp"}))
        else:
            self.assert_clean(run("--", *INFO))

    def test_an_image_is_the_same_on_the_disk(self):
        image = self.file("image")
        image.write_bytes(os.urandom(1 << 20) * 64)
        # The disk keeps its contents for all processes of one run.
        self.assert_clean(run("--", "sh", "-ec", f"""
            qemu-img convert -n -f raw -O raw {image} {DISK}
            qemu-img compare -f raw -F raw {image} {DISK}"""))

    def test_keeps_the_programs_status_unless_something_was_found(self):
        self.assertEqual(run("--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(run("--", "sh", "-c", "kill -TERM $$").returncode, 128 + 15)
        self.assertEqual(run("--inject", "underrun", "--", *INFO).returncode, 1)
        self.assertEqual(run("--inject", "underrun", "--exit-code", "42", "--", *INFO).returncode, 42)

    def test_moat_audits_its_own_disk_through_iommufd(self):
        audit = (MOAT, "audit", "--machine", "vfio", "--device", "0000:05:00.0", "--operations", "40")
        done = run("--", *audit)
        self.assert_clean(done)
        self.assertIn("no findings", done.stdout)
        done = run("--inject", "overrun:64", "--", *audit)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stdout, r'wrote-outside: nvme, "read", 64 bytes past the end of "data"')
        self.assertIn("the device did wrong", done.stderr)

    def test_leaves_the_programs_options_to_it(self):
        for words in (("--device", "edu"), ("--device", "edu", "--device", "nic"), ()):
            self.assertEqual(run(*words, "--", "sh", "-c", "exit 7").returncode, 7, words)

    def test_reports_an_underrun_with_the_programs_stacks(self):
        done = run("--inject", "underrun:32", "--", *INFO)
        report = done.stderr
        self.assertRegex(report, r"ERROR: moat: dma-buffer-underflow on IOVA 0x[0-9a-f]+ by device nvme")
        self.assertIn("WRITE of 32 bytes", report)
        for section in ("mapped by thread", "last register write by thread"):
            stack = report.split(section)[1].split("\n\n")[0]
            self.assertIn("qemu", stack, report)

    def test_says_that_a_wrong_cannot_be_seen(self):
        done = run("--inject", "short-transfer:1", "--", "qemu-io", "-r", "-f", "raw", "-c", "read 0 4k", DISK)
        self.assertRegex(done.stderr, r"the device did wrong [0-9]+ times? \(short-transfer\); none of it")

    UNSEEN = "none of it left the program's mappings, so none can be seen"
    NO_ACCESS = "none of it was an access to memory"
    # What is printed of qemu-io's writes and reads. Whether a late or a stale access is seen depends on what
    # qemu-io has unmapped meanwhile.
    WRONGS = {"none": "no finding", "overrun": "dma-buffer-overflow", "underrun": "dma-buffer-underflow",
              "late": UNSEEN + "|dma-", "stale": UNSEEN + "|dma-", "read-only": UNSEEN, "short-transfer": UNSEEN,
              "wrong-data": UNSEEN, "wrong-status": NO_ACCESS, "truncated": "dma-wild-access",
              "lost-interrupt": NO_ACCESS, "hang": NO_ACCESS, "removed": NO_ACCESS, "all-ones": NO_ACCESS}
    # 124 and 137: it waits until the timeout; 139: it reads what a stale write has spoiled.
    STATUSES = (0, 1, 124, 137, 139)

    def test_says_of_each_wrong_what_can_be_seen(self):
        listed = run("--inject", "?", "--", "true").stderr
        self.assertEqual(set(re.search(r"is no injection: (.*)", listed)[1].split(", ")), set(self.WRONGS))
        for name, said in self.WRONGS.items():
            with self.subTest(name):
                done = run("--inject", name, "--", "timeout", "-k", "1", "4", "qemu-io", "-f", "raw",
                           "-c", "write -P 90 0 4k", "-c", "read -P 90 0 4k", DISK)
                self.assertRegex(done.stderr, said)
                if name != "none":
                    self.assertRegex(done.stderr, fr"the device did wrong [0-9]+ times? \({name}\)")
                found = "ERROR: moat: " in done.stderr
                self.assertIn(done.returncode, (1,) if found else self.STATUSES, done.stderr)

    def test_survives_each_wrong_after_the_disk_worked(self):
        for name in self.WRONGS:
            with self.subTest(name):
                done = run("--inject", name, "--after", "3", "--", "timeout", "-k", "1", "2", *INFO)
                self.assertIn("moat run: ", done.stderr)
                self.assertIn(done.returncode, self.STATUSES, done.stderr)

    def test_lets_a_map_fail(self):
        done = run("--fail", "map:2=ENOMEM", "--", *INFO)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Cannot allocate memory", done.stderr)
        self.assertIn("no finding", done.stderr)

    def test_limits_what_can_be_mapped(self):
        for limit, said in (("entries=2", "No space left on device"), ("locked=8K", "Cannot allocate memory"),
                            ("bits=16", "fixed iova range not found"), ("reserved=0x0-0x7fffffffff", "leaves no address")):
            done = run("--limit", limit, "--", *INFO)
            self.assertIn(done.returncode, (1, 2))
            self.assertIn(said, done.stderr, limit)
        self.assert_clean(run("--limit", "entries=16", "--limit", "reserved=0x10000-0x1ffff", "--", *INFO))

    def test_shows_one_interface_of_vfio_alone(self):
        audit = (MOAT, "audit", "--machine", "vfio", "--device", "0000:05:00.0", "--operations", "40")
        names = "ls /dev/vfio /sys/bus/pci/devices/*/vfio-dev"
        for paths in ("auto", "redirect"):
            type1 = run("--api", "type1", "--paths", paths, "--", "sh", "-c", names)
            self.assertEqual(type1.stdout.split(), ["/dev/vfio:", "1280", "vfio"], type1.stderr)
            iommufd = run("--api", "iommufd", "--paths", paths, "--", "sh", "-c", names)
            self.assertEqual(iommufd.stdout.split()[:2], ["/dev/vfio:", "devices"], iommufd.stderr)
            self.assertIn("vfio0", iommufd.stdout)
            for api in ("type1", "iommufd"):
                done = run("--api", api, "--paths", paths, "--", *audit)
                self.assert_clean(done)
                self.assertIn("no findings", done.stdout)
            # QEMU 7.2 knows containers alone.
            self.assert_clean(run("--api", "type1", "--paths", paths, "--", *INFO))
            failed = run("--api", "iommufd", "--paths", paths, "--", *INFO)
            self.assertEqual(failed.returncode, 1)
            self.assertIn("No such file or directory", failed.stderr)

    def seeded(self, seed: str) -> tuple[list, str]:
        """The findings of 64 reads, without what differs between processes; and the summary."""
        found = self.file("found")
        done = run("--seed", seed, "--inject", "underrun", "--json", str(found), "--", "qemu-io", "-r", "-f", "raw",
                   *(word for at in range(64) for word in ("-c", f"read {at * 64}k 4k")), DISK)
        lines = [json.loads(line) for line in found.read_text().splitlines()]
        told = re.search(r"the device did wrong .*", done.stderr)
        return [(each["kind"], each["address"], each["bytes"]) for each in lines], told[0] if told else done.stderr

    def test_goes_wrong_at_the_same_commands_for_an_equal_seed(self):
        findings, told = self.seeded("7")
        self.assertRegex(told, r"the device did wrong [0-9]+ times \(underrun, seed 7\)")
        self.assertGreater(len(findings), 4)
        self.assertEqual((findings, told), self.seeded("7"))
        self.assertNotEqual(findings, self.seeded("8")[0])
        self.assertNotEqual(told, self.seeded("8")[1].replace("8", "7"))

    def test_writes_findings_a_recording_and_a_page(self):
        found, recording, page = self.file("found"), self.file("recording"), self.file("page")
        run("--inject", "underrun", "--json", str(found), "--record", str(recording), "--html", str(page),
            "--", *INFO)
        kinds = {json.loads(line)["kind"] for line in found.read_text().splitlines()}
        self.assertIn("dma-buffer-underflow", kinds)
        replayed = subprocess.run([MOAT, "replay", recording], capture_output=True, text=True, timeout=60,
                                  check=False)
        self.assertEqual(replayed.returncode, 1, replayed.stderr)
        self.assertIn("dma-buffer-underflow", replayed.stdout)
        self.assertIn("<html", page.read_text()[:200])

    def test_says_what_is_wrong_with_its_arguments(self):
        for words, said in ((("--device", "floppy"), "floppy"), (("--inject", "overrun:0"), "\"0\""),
                            (("--fail", "unmap:1=ENOMEM"), "unmap:1=ENOMEM"),
                            (("--fail", "map:0=ENOMEM"), "map:0"), (("--fail", "map:1=EWHAT"), "EWHAT"),
                            (("--limit", "entries=0"), "entries=0"), (("--api", "vfio"), "vfio"),
                            (("--seed", "1"), "add --inject"), (("--seed", "x", "--inject", "late"), "\"x\"")):
            done = run(*words, "--", "true")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(said, done.stderr)

    def test_names_a_program_that_is_not_there(self):
        done = run("--", "/nowhere/program")
        self.assertEqual(done.returncode, 3)
        self.assertIn("/nowhere/program: No such file or directory", done.stderr)

    def test_says_that_a_program_opened_no_device(self):
        self.assertIn("opened no soft device", run("--", "true").stderr)
        self.assertEqual(run("--quiet", "--", "true").stderr, "")

    def test_leaves_no_folder_behind(self):
        folder = self.file("tmp")
        folder.mkdir()
        run("--", *INFO, env={**os.environ, "TMPDIR": str(folder)})
        self.assertEqual(list(folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
