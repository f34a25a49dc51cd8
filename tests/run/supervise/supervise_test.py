#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""`moat run --supervise` with a static C program, a Go program, and the client of the preloaded library's tests.

Usage: supervise_test.py MOAT STATIC_CLIENT GO_CLIENT CLIENT CLIENT_LIBRARY REFUSE
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

MOAT, STATIC_CLIENT, GO_CLIENT, CLIENT, CLIENT_LIBRARY, REFUSE = sys.argv[1:7]
NOBODY = 65534


def run(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run([MOAT, "run", "--supervise", "--device", "edu", *words], capture_output=True, text=True,
                          timeout=60, check=False, **more)


class Supervised:
    """What each client does."""
    client = ""

    def assert_clean(self, done: subprocess.CompletedProcess) -> None:
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("moat run: no finding", done.stderr)
        self.assertNotIn("ERROR", done.stderr)

    def assert_found(self, done: subprocess.CompletedProcess, kind: str, *functions: str) -> None:
        """One report, with these functions in its stacks."""
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stderr.count("ERROR: moat: "), 1, done.stderr)
        self.assertIn("ERROR: moat: " + kind, done.stderr)
        for each in functions:
            self.assertIn(each, done.stderr)

    def test_the_device_works(self):
        done = run("--", self.client, "dma")
        self.assert_clean(done)
        self.assertIn("1 map,", done.stderr)

    def test_finds_an_overrun_at_the_programs_buffer(self):
        done = run("--", self.client, "overrun")
        self.assert_found(done, "dma-buffer-overflow", "48 bytes over the end of the 4096-byte mapping")

    def test_the_device_works_without_a_mount_namespace(self):
        self.assert_clean(run("--paths", "redirect", "--", self.client, "dma"))

    def test_finds_a_use_after_unmap(self):
        self.assert_found(run("--", self.client, "use_after_unmap"), "dma-use-after-unmap", "unmapped by thread",
                          "previously mapped by thread")


@unittest.skipUnless(os.path.exists(GO_CLIENT), "no go (golang-go)")
class Go(Supervised, unittest.TestCase):
    client = GO_CLIENT

    def test_shows_the_lines_of_the_program(self):
        report = run("--", self.client, "use_after_unmap").stderr
        for section, function in (("unmapped by thread", "unmapBuffer"), ("previously mapped by", "mapBuffer"),
                                  ("last register write by", "main.device.copy")):
            stack = report.split(section)[1].split("\n\n")[0]
            self.assertRegex(stack, function + r" \S*go_client.go:[0-9]+")
            self.assertRegex(stack, r"main.main \S*go_client.go:[0-9]+")


class Dynamic(unittest.TestCase):
    """A file of VFIO is the same to the program as with the preloaded library."""
    # A file's number is high; a mapping may grow, to where nothing answers; SIGSEGV is the program's own.
    OTHER = {"close_range", "mremap", "pthread_sigmask", "sigprocmask"}

    def run_cases(self, *options: str) -> None:
        cases = subprocess.run([CLIENT, "--list"], capture_output=True, text=True, check=True).stdout.split()
        self.assertLess(self.OTHER, set(cases))
        for case in set(cases) - self.OTHER:
            with self.subTest(case):
                done = run("--quiet", "--exit-code", "0", *options, "--", CLIENT, case,
                           env={**os.environ, "CLIENT_LIBRARY": CLIENT_LIBRARY})
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("not so:", done.stderr)

    def test_each_case_of_the_client(self):
        self.run_cases()

    def test_each_case_of_the_client_without_a_mount_namespace(self):
        self.run_cases("--paths", "redirect")


class Interfaces(unittest.TestCase):
    """moat's own audit drives a device through each of VFIO's interfaces."""

    def audit(self, api: str, *options: str) -> subprocess.CompletedProcess:
        return run("--api", api, *options, "--", MOAT, "audit", "--machine", "vfio", "--device", "0000:05:00.0",
                   "--operations", "40")

    def test_both_serve_the_audit_of_a_device(self):
        for api in ("type1", "iommufd"):
            for paths in ("auto", "redirect"):
                done = self.audit(api, "--paths", paths)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("no findings", done.stdout)
                self.assertIn("moat run: no finding", done.stderr)

    def test_both_let_the_audit_find_an_overrun(self):
        for api in ("type1", "iommufd"):
            done = self.audit(api, "--inject", "overrun:64")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stdout, r"wrote-outside: edu, .* 64 bytes past the end of")
            self.assertIn("the device did wrong", done.stderr)


class Refused(unittest.TestCase):
    def run_without(self, call: int) -> subprocess.CompletedProcess:
        return subprocess.run([REFUSE, str(call), MOAT, "run", "--supervise", "--paths", "redirect", "--device", "edu",
                               "--", STATIC_CLIENT, "interrupt"], capture_output=True, text=True, timeout=60,
                              check=False)

    def test_a_machine_without_ptrace_or_seccomp_is_named(self):
        for call, name in ((101, "ptrace"), (317, "seccomp filters")):
            done = self.run_without(call)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(f"--supervise needs {name}, which this machine or its container refuses: Operation not "
                          "permitted", done.stderr)

    def test_a_machine_without_namespaces_is_served_unless_they_are_asked_for(self):
        for call in (272, 165): # unshare, mount
            done = subprocess.run([REFUSE, str(call), MOAT, "run", "--device", "edu", "--", CLIENT, "dma"],
                                  capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("opened no soft device", done.stderr)
            done = subprocess.run([REFUSE, str(call), MOAT, "run", "--paths", "mount", "--", "true"],
                                  capture_output=True, text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 3, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertRegex(done.stderr, "--paths mount needs a mount namespace, which this machine or its container "
                                          r"refuses \(.*: Operation not permitted\); use --paths redirect")

    def test_says_why_interrupts_do_not_reach_the_program(self):
        self.assertIn("interrupts do not reach the program: this machine or its container refuses pidfd_getfd",
                      self.run_without(438).stderr)


class Static(Supervised, unittest.TestCase):
    client = STATIC_CLIENT

    def test_shows_the_lines_of_the_program(self):
        report = run("--", self.client, "use_after_unmap").stderr
        for section, function in (("unmapped by thread", "unmap_buffer"), ("previously mapped by", "map_buffer"),
                                  ("last register write by", "copy")):
            stack = report.split(section)[1].split("\n\n")[0]
            self.assertRegex(stack, fr" in {function} \S*static_client.c:[0-9]+")
            self.assertRegex(stack, r" in main \S*static_client.c:[0-9]+")

    def test_interrupts_reach_the_program(self):
        done = run("--", self.client, "interrupt")
        self.assert_clean(done)
        self.assertIn("interrupted 1 time", done.stderr)

    def test_threads_and_children(self):
        done = run("--", self.client, "threads_and_fork")
        self.assert_clean(done)
        self.assertIn("open the file again in the child", done.stderr)
        self.assertIn("1,807 accesses to registers", done.stderr)

    def test_a_file_lasts_until_its_last_descriptor_and_mapping(self):
        self.assert_clean(run("--", self.client, "reopened"))

    def test_a_file_has_any_number_that_the_program_chooses(self):
        self.assert_clean(run("--", self.client, "low_numbers"))

    def test_files_end_with_the_program_that_opened_them(self):
        done = run("--", self.client, "execution")
        self.assert_clean(done)
        self.assertIn("6 accesses to registers", done.stderr)

    def test_the_programs_signals_are_its_own(self):
        self.assert_clean(run("--", self.client, "signals"))

    def test_is_recommended_without_it(self):
        for client, kind in ((self.client, "static"), (GO_CLIENT, "Go")):
            if not os.path.exists(client):
                continue
            done = subprocess.run([MOAT, "run", "--device", "edu", "--", client, "dma"], capture_output=True,
                                  text=True, timeout=60, check=False)
            self.assertIn(f"is a {kind} program, on which a preloaded library has no effect: add --supervise",
                          done.stderr)
        done = subprocess.run([MOAT, "run", "--", "true"], capture_output=True, text=True, timeout=60, check=False)
        self.assertNotIn("--supervise", done.stderr)

    def test_a_killed_program(self):
        done = run("--", self.client, "killed")
        self.assertEqual(done.returncode, 128 + signal.SIGKILL)
        self.assertIn("no finding", done.stderr)

    def test_a_hostile_program_is_served_to_its_end(self):
        self.assert_found(run("--", self.client, "hostile"), "dma-memory-gone")

    def test_counts_what_lasts_until_the_end(self):
        self.assertIn("1 mapping of 4,096 bytes lasted until the end",
                      run("--", self.client, "left_mapped").stderr)
        self.assertNotIn("lasted", run("--", self.client, "dma").stderr)

    def test_keeps_the_programs_status(self):
        self.assertEqual(run("--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(run("--", "sh", "-c", "kill -TERM $$").returncode, 128 + signal.SIGTERM)
        self.assertEqual(run("--exit-code", "42", "--", self.client, "overrun").returncode, 42)

    def test_serves_what_a_shell_starts(self):
        done = run("--", "sh", "-ec", f"{self.client} dma; {self.client} dma")
        self.assert_clean(done)
        self.assertIn("2 maps,", done.stderr)

    def test_ends_what_the_program_leaves(self):
        done = run("--", "sh", "-c", "sleep 1000 & exit 3")
        self.assertEqual(done.returncode, 3)

    def test_names_a_program_that_is_not_there(self):
        done = run("--", "/nowhere/program")
        self.assertEqual(done.returncode, 3)
        self.assertIn("/nowhere/program: No such file or directory", done.stderr)

    def test_writes_findings_a_recording_and_a_page(self):
        with tempfile.TemporaryDirectory(prefix="moat-run-test-") as name:
            found, recording, page = (pathlib.Path(name) / each for each in ("found", "recording", "page"))
            run("--json", str(found), "--record", str(recording), "--html", str(page), "--", self.client, "overrun")
            self.assertIn("<html", page.read_text()[:200])
            self.assertIn("dma-buffer-overflow", page.read_text())
            self.assertEqual([json.loads(line)["kind"] for line in found.read_text().splitlines()],
                             ["dma-buffer-overflow"])
            replayed = subprocess.run([MOAT, "replay", recording], capture_output=True, text=True, timeout=60,
                                      check=False)
            self.assertIn("dma-buffer-overflow", replayed.stdout)

    def test_serves_an_ordinary_user(self):
        if os.geteuid() != 0:
            self.skipTest("every other test does")
        with tempfile.TemporaryDirectory(prefix="moat-run-test-", dir="/tmp") as name:
            os.chmod(name, 0o755)
            client = pathlib.Path(name) / "client"
            client.write_bytes(pathlib.Path(self.client).read_bytes())
            client.chmod(0o755)
            self.assert_clean(run("--", str(client), "dma", user=NOBODY, group=NOBODY, extra_groups=[],
                                  env={**os.environ, "HOME": "/", "TMPDIR": "/tmp"}))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
