# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the allocator of the DMA API's address spaces did, read from a trace of the probes below. Faults are ranges
that overlap, guards of another size, and frees of another size."""
import bisect
import re
from dataclasses import dataclass, field

# asked: the caller's request; taken: the request behind moat_guard's hook, padded or not; got: the range; freed: what
# is freed, behind the hook. taken and freed lie on the first instruction behind it.
BEHIND = """p:moat/taken alloc_iova_fast+{site} iovad=%di:x64 size=%si:u64
p:moat/freed free_iova_fast+{site} iovad=%di:x64 pfn=%si:u64 size=%dx:u64"""
FPROBES = """f:moat/asked alloc_iova_fast size=size:u64
f:moat/got alloc_iova_fast%return pfn=$retval:u64"""
# While one of these runs, the kernel skips the other probes in interrupts.
KPROBES = """p:moat/asked alloc_iova_fast size=$arg2:u64
r512:moat/got alloc_iova_fast pfn=$retval:u64"""
LINE = re.compile(r"\s*.*-(?P<task>\d+)\s+\[(?P<cpu>\d+)\] \S+\s+\S+: (?P<event>\w+): (?P<text>.*)")
FIELD = re.compile(r"\b(iovad|pfn|size)=(\w+)")
# Ranges below this many pages are rounded up to a power of two by the allocator.
ROUNDED_BELOW = 32


def node_pages(size):
    return 1 << (size - 1).bit_length() if size < ROUNDED_BELOW else size


def probes(config):
    """The probes for a kernel of this configuration: lines for dynamic_events."""
    site = 9 if "CONFIG_X86_KERNEL_IBT=y" in config else 5
    return BEHIND.format(site=site) + "\n" + (FPROBES if "CONFIG_FPROBE_EVENTS=y" in config else KPROBES)


@dataclass
class Request:
    asked: int
    taken: int = 0
    iovad: str = ""


@dataclass
class Phase:
    """What happened between two marks. padded, plain: allocations by address space."""

    padded: dict = field(default_factory=dict)
    plain: dict = field(default_factory=dict)
    freed: int = 0


@dataclass
class Ranges:
    """Live ranges of an address space: pages by first page, and the first pages in order."""

    pages: dict = field(default_factory=dict)
    order: list = field(default_factory=list)

    def overlapping(self, first, pages):
        at = bisect.bisect_left(self.order, first + pages)
        before = self.order[at - 1] if at else None
        return before if before is not None and before + self.pages[before] > first else None

    def add(self, first, pages):
        bisect.insort(self.order, first)
        self.pages[first] = pages

    def remove(self, first):
        self.order.pop(bisect.bisect_left(self.order, first))
        return self.pages.pop(first)


class Checker:
    """Reads lines in order. A mark "NAME PAGES" in the trace begins a phase with guards of so many pages; "end" ends
    it. An allocation of a phase has that guard (up to a quarter less where the module cuts it) or none."""

    def __init__(self):
        self.faults = []
        self.overlaps = []
        self.phases = {}
        self.phase = None
        self.guard = 0
        self.requests = {}
        self.live = {}

    def read(self, line):
        found = LINE.match(line)
        if not found:
            return
        event, text = found["event"], found["text"]
        if event == "tracing_mark_write":
            self.mark(text)
            return
        values = dict(FIELD.findall(text))
        # Interrupts nest: a stack for each task. Each processor has a task 0.
        stack = self.requests.setdefault((found["task"], found["task"] == "0" and found["cpu"]), [])
        if event == "asked":
            stack.append(Request(int(values["size"])))
        elif event == "taken" and stack:
            stack[-1].taken, stack[-1].iovad = int(values["size"]), values["iovad"]
        elif event == "got" and stack:
            request = stack.pop()
            if request.taken and int(values["pfn"]):
                self.allocate(request, int(values["pfn"]))
        elif event == "freed":
            self.free(values["iovad"], int(values["pfn"]), int(values["size"]))

    def mark(self, text):
        name, _, guard = text.partition(" ")
        self.phase = None if name == "end" else self.phases.setdefault(name, Phase())
        self.guard = int(guard or 0)

    def allocate(self, request, first):
        ranges = self.live.setdefault(request.iovad, Ranges())
        pages = node_pages(request.taken)
        other = ranges.overlapping(first, pages)
        if other is not None:
            self.overlaps.append(f"range {first} of {pages} pages overlaps {other} of {ranges.remove(other)}")
        ranges.add(first, pages)
        if self.phase:
            self.count(request)

    def count(self, request):
        guard = request.taken - request.asked
        counts = self.phase.padded if guard else self.phase.plain
        counts[request.iovad] = counts.get(request.iovad, 0) + 1
        if guard and not self.guard - self.guard // 4 <= guard <= self.guard:
            self.faults.append(f"{request.asked} pages have a guard of {guard}, not {self.guard}")

    def free(self, iovad, first, size):
        if self.phase:
            self.phase.freed += 1
        ranges = self.live.setdefault(iovad, Ranges())
        if first in ranges.pages:
            pages = ranges.remove(first)
            if node_pages(size) != pages:
                self.faults.append(f"range {first} of {pages} pages is freed as {size}")
        else:  # older than the trace
            other = ranges.overlapping(first, node_pages(size))
            if other is not None:
                self.overlaps.append(f"the older range {first} of {size} pages overlaps {other}")
