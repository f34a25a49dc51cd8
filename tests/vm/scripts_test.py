#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The lab's own rules, without a boot: valid reasons to skip a test, the boots that are repeated, the
order of modules, and what the checker of allocations finds."""
import lzma
import pathlib
import sys
import tempfile
import threading
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/vm"))
import boot  # noqa: E402
import cache  # noqa: E402
import debian  # noqa: E402
import external_module  # noqa: E402
import iova_trace  # noqa: E402
import kernel  # noqa: E402
import machine  # noqa: E402
import modules  # noqa: E402
import probe  # noqa: E402
import testpmd  # noqa: E402
import vm  # noqa: E402


class Skips(unittest.TestCase):
    def setUp(self):
        self.before = dict(probe.PROBES)
        probe.PROBES.update({"qemu": lambda: "", "cpio": lambda: "cpio is not installed",
                             "busybox": lambda: "", "kernel-stock": lambda: "",
                             "kernel-iommufd": lambda: "no iommufd kernel yet"})

    def tearDown(self):
        probe.PROBES.update(self.before)

    def excuses(self, line):
        return not probe.without_excuse([f"  1   SKIPPED: {line}"])

    def test_a_skip_names_the_first_probe_that_fails(self):
        self.assertEqual(probe.reason_to_skip("stock"),
                         "vm/stock for its probe cpio: cpio is not installed")
        probe.PROBES["cpio"] = lambda: ""
        self.assertIsNone(probe.reason_to_skip("stock"))
        self.assertEqual(probe.reason_to_skip("iommufd"),
                         "vm/iommufd for its probe kernel-iommufd: no iommufd kernel yet")

    def test_a_probe_that_fails_here_too_excuses(self):
        self.assertTrue(self.excuses("vm/stock for its probe cpio: cpio is not installed"))
        self.assertTrue(self.excuses("vm/iommufd for its probe kernel-iommufd: whatever it said"))
        self.assertTrue(self.excuses("QEMU is not installed"), "not of this lab")

    def test_some_tests_need_a_newer_qemu(self):
        probe.PROBES.update({"cpio": lambda: "", "qemu-new": lambda: "no newer QEMU yet"})
        self.assertIsNone(probe.reason_to_skip("stock"))
        reason = probe.reason_to_skip("stock", ["qemu-new"])
        self.assertEqual(reason, "vm/stock for its probe qemu-new: no newer QEMU yet")
        self.assertTrue(self.excuses(reason))
        probe.PROBES["qemu-new"] = lambda: ""
        self.assertFalse(self.excuses(reason))

    def test_headers_need_their_compiler_and_no_machine(self):
        probe.PROBES.update({"compiler-arm64": lambda: "", "kernel-arm64": lambda: "no kernel arm64 yet"})
        self.assertEqual(probe.reason_to_skip("arm64"),
                         "vm/arm64 for its probe kernel-arm64: no kernel arm64 yet")
        self.assertTrue(self.excuses("vm/arm64 for its probe kernel-arm64: no kernel arm64 yet"))

    def test_testpmd_is_excused_where_it_cannot_be_fetched(self):
        probe.PROBES["testpmd"] = lambda: "no network"
        reason = probe.reason_without("testpmd")
        self.assertEqual(reason, "run/testpmd for its probe testpmd: no network")
        self.assertTrue(self.excuses(reason))
        self.assertFalse(self.excuses("run/command for its probe testpmd: no network"))
        self.assertFalse(self.excuses("run/testpmd for its probe cpio: cpio is not installed"))
        probe.PROBES["testpmd"] = lambda: ""
        self.assertIsNone(probe.reason_without("testpmd"))
        self.assertFalse(self.excuses(reason))

    def test_nothing_else_does(self):
        self.assertFalse(self.excuses("vm/stock for its probe qemu: it is not installed"))
        self.assertFalse(self.excuses("vm/stock for its probe kernel-iommufd: no kernel"))
        self.assertFalse(self.excuses("vm/stock for its probe none: no such probe"))
        self.assertFalse(self.excuses("vm/none for its probe cpio: no such kernel"))
        self.assertFalse(self.excuses("vm/stock"))


class Testpmd(unittest.TestCase):
    DEPENDS = {
        "libdpdk-dev": "librte-net-virtio23 (= 22.11), librte-net-cxgbe23, librte-mempool-ring23, libssl-dev",
        "dpdk-dev": "libdpdk-dev (>= 22.11), python3, libc6 (>= 2.34), librte-eal23 (>= 22.11)",
        "librte-eal23": "libnuma1 (>= 2.0.11), libstdc++6, adduser | libx1, ibverbs-providers",
        "librte-net-virtio23": "librte-eal23", "librte-mempool-ring23": "libc6", "libnuma1": "libc6", "libx1": "",
        "ibverbs-providers": "libc6",
    }

    def test_needs_libraries_alone(self):
        before, testpmd.depends_of = testpmd.depends_of, lambda names: ",".join(self.DEPENDS[name] for name in names)
        try:
            self.assertEqual(testpmd.packages(), ["dpdk-dev", "ibverbs-providers", "libnuma1", "librte-eal23",
                                                  "librte-mempool-ring23", "librte-net-virtio23", "libx1"])
        finally:
            testpmd.depends_of = before


FLAKE = ["[    0.5] Oops: int3: 0000 [#1] PREEMPT SMP", "[    0.5] RIP: 0010:sched_clock_cpu+0xa/0x20"]
IN_SCHEDULER = ["[   19.8] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI",
                "[   19.8] RIP: 0010:ttwu_do_activate+0x8d/0x220"]
IN_7_3 = ["[    2.3] Oops: int3: 0000 [#1] SMP NOPTI", "[    2.3] RIP: 0010:ktime_get+0x3c/0x100"]


class Fetching(unittest.TestCase):
    def test_one_of_those_that_need_a_kernel_at_once_fetches_it(self):
        second = threading.Thread(target=debian.find, args=["stock"])
        fetched = []

        def unpack(packages, folder):
            fetched.append(folder)
            if len(fetched) == 1:
                second.start()
                second.join(0.3)  # ends at once if nothing makes it wait
            folder.mkdir(exist_ok=True)
            (folder / "ready").write_text(packages.mark())

        with tempfile.TemporaryDirectory() as folder, mock.patch.object(debian, "unpack", unpack), \
                mock.patch.dict("os.environ", {"XDG_CACHE_HOME": folder}):
            debian.find("stock")
            second.join()
        self.assertEqual(len(fetched), 1)


class Flake(unittest.TestCase):
    def boots(self, *outcomes):
        """How many boots there are, and which outcome counts."""
        left = list(outcomes)
        result = vm.run_but_for_flake(lambda: left.pop(0))
        return len(outcomes) - len(left), result

    def test_only_the_known_one_is_tried_again(self):
        flake = boot.Outcome(why="the kernel printed: Oops", console=FLAKE)
        good = boot.Outcome(status=0, began=True)
        self.assertEqual(self.boots(good, good), (1, good))
        self.assertEqual(self.boots(flake, good), (2, good))
        self.assertEqual(self.boots(boot.Outcome(console=IN_7_3), good), (2, good))
        elsewhere = [FLAKE[0], "[    0.5] RIP: 0010:vfio_pci_mmap_fault+0x3c/0x100"]
        for other in (elsewhere, FLAKE[:1], FLAKE[1:], ["[    0.5] BUG: unable to handle page fault"], []):
            bad = boot.Outcome(why="the kernel printed: Oops", console=other)
            self.assertEqual(self.boots(bad, good), (1, bad))

    def test_once_at_most(self):
        flake = boot.Outcome(why="the kernel printed: Oops", console=FLAKE)
        again = boot.Outcome(why="again", console=FLAKE)
        self.assertEqual(self.boots(flake, again, flake), (2, again))

    def test_what_comes_after_our_first_word_is_ours_but_in_the_scheduler(self):
        late = boot.Outcome(why="the kernel printed: Oops", began=True, console=FLAKE)
        self.assertEqual(self.boots(late, late), (1, late))
        good = boot.Outcome(status=0, began=True)
        traced = boot.Outcome(why="the kernel printed: Oops", began=True, console=IN_SCHEDULER)
        self.assertEqual(self.boots(traced, good), (2, good))
        other = boot.Outcome(why="the kernel printed: Oops", began=True, console=IN_SCHEDULER[1:])
        self.assertEqual(self.boots(other, good), (1, other))


class Modules(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, needs in {"ahci": "libata,libahci", "libahci": "libata", "libata": "scsi_mod",
                            "scsi-mod": "", "nvme-core": "crc64"}.items():
            (self.folder / f"{name}.ko").write_bytes(b"license=GPL\0depends=" + needs.encode() + b"\0name=x\0")
        packed = self.folder / "nvme.ko.xz"
        packed.write_bytes(lzma.compress(b"license=GPL\0depends=nvme-core\0"))
        self.debian = kernel.Kernel("test", self.folder / "vmlinuz", self.folder)

    def order(self, *names):
        return [file.name for file in self.debian.to_insert(names)]

    def test_each_comes_once_and_after_those_that_it_needs(self):
        self.assertEqual(self.order("ahci", "libata"), ["scsi-mod.ko", "libata.ko", "libahci.ko", "ahci.ko"])

    def test_names_are_spelled_with_hyphens_or_without(self):
        self.assertEqual(self.order("scsi_mod"), self.order("scsi-mod"))

    def test_packed_ones_are_read_and_built_in_ones_passed_over(self):
        files = {modules.name_of(file): file for file in self.folder.iterdir()}
        found = modules.in_order(["nvme", "sd_mod"], files)
        self.assertEqual([file.name for file in found], ["nvme-core.ko", "nvme.ko.xz"])
        self.assertEqual(kernel.Kernel("test", self.folder / "bzImage").to_insert(["nvme"]), [])

    def test_a_kernel_without_headers_builds_no_module(self):
        with self.assertRaisesRegex(cache.Unavailable, "test has no headers"):
            external_module.build(self.debian, self.folder, self.folder)


class Machines(unittest.TestCase):
    def test_each_disk_is_a_file_of_the_folder_and_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            written = pathlib.Path(folder) / "nvme.img"
            written.write_bytes(b"kept")
            machine.DRIVERS.make_disks(folder)
            self.assertEqual(written.read_bytes(), b"kept")
            for disk in ("nvme", "usb", "sata"):
                file = f"{folder}/{disk}.img"
                self.assertTrue(pathlib.Path(file).exists())
                self.assertIn(f"if=none,id={disk},format=raw,file={file}", machine.DRIVERS.words(folder))

    def test_instructions_are_counted_on_one_processor(self):
        counting = machine.DRIVERS.counting_instructions()
        self.assertEqual(counting.processors, 1)
        self.assertIn("-icount", counting.accelerator)
        self.assertEqual(counting.devices, machine.DRIVERS.devices)

    def test_processors_run_by_turns_without_counting(self):
        single = machine.DRIVERS.single_threaded()
        self.assertEqual(single.processors, machine.DRIVERS.processors)
        self.assertIn("tcg,thread=single", single.accelerator)
        self.assertNotIn("-icount", single.accelerator)


class Patches(unittest.TestCase):
    PATCH = "--- a/guard.c\n+++ b/guard.c\n@@ -1 +1 @@\n-{before}\n+{after}\n"

    def apply(self, *changes):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            (folder / "guard.c").write_text("one\n")
            for number, (before, after) in enumerate(changes):
                (folder / f"{number}.patch").write_text(self.PATCH.format(before=before, after=after))
            kernel.apply([folder / f"{number}.patch" for number in range(len(changes))], folder)
            return (folder / "guard.c").read_text()

    def test_are_applied_in_order(self):
        self.assertEqual(self.apply(("one", "two"), ("two", "three")), "three\n")

    def test_that_do_not_fit_are_named(self):
        with self.assertRaisesRegex(cache.Unavailable, "1.patch"):
            self.apply(("one", "two"), ("one", "three"))


class Allocations(unittest.TestCase):
    """A guard of 4 pages and a mapping of 12: 16 pages."""

    def checked(self, *events):
        checker = iova_trace.Checker()
        for event in ("tracing_mark_write: all 4", *events):
            checker.read(f"      dd-7     [000] d.Z..     4551: {event}")
        return checker

    def allocation(self, first, asked=12, taken=16):
        return (f"asked: (alloc_iova_fast+0x4/0x2b0) size={asked}",
                f"taken: (alloc_iova_fast+0x9/0x2b0) iovad=0xff08 size={taken}",
                f"got: (iommu_dma_alloc_iova+0xd4/0x120 <- alloc_iova_fast) pfn={first}")

    def free(self, first, size=16):
        return (f"freed: (free_iova_fast+0x9/0x140) iovad=0xff08 pfn={first} size={size}",)

    def test_correct_ones_have_no_faults(self):
        checker = self.checked(*self.allocation(32), *self.allocation(48), *self.free(32), *self.allocation(32),
                               *self.allocation(64, 12, 12), *self.free(96))
        self.assertEqual(checker.faults + checker.overlaps, [])
        self.assertEqual((checker.phases["all"].padded, checker.phases["all"].plain), ({"0xff08": 3}, {"0xff08": 1}))
        self.assertEqual(checker.phases["all"].freed, 2)

    def test_interrupts_nest(self):
        asked, *rest = self.allocation(32, 4, 8)
        checker = self.checked(asked, *self.allocation(48), *rest)
        self.assertEqual(checker.faults + checker.overlaps, [])
        self.assertEqual(checker.live["0xff08"].pages, {32: 8, 48: 16})

    def test_a_range_in_a_guard_overlaps(self):
        checker = self.checked(*self.allocation(32), *self.allocation(44))
        self.assertEqual(checker.overlaps, ["range 44 of 16 pages overlaps 32 of 16"])
        self.assertEqual(self.checked(*self.allocation(44), *self.allocation(32)).overlaps,
                         ["range 32 of 16 pages overlaps 44 of 16"])

    def test_an_older_range_overlaps(self):
        checker = self.checked(*self.allocation(32), *self.free(24))
        self.assertEqual(checker.overlaps, ["the older range 24 of 16 pages overlaps 32"])

    def test_another_guard_is_a_fault(self):
        self.assertEqual(self.checked(*self.allocation(32, 12, 14)).faults, ["12 pages have a guard of 2, not 4"])

    def test_a_free_of_another_size_is_a_fault(self):
        self.assertEqual(self.checked(*self.allocation(32), *self.free(32, 17)).faults,
                         ["range 32 of 16 pages is freed as 17"])


if __name__ == "__main__":
    vm.say = lambda text: None
    unittest.main()
