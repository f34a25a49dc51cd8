#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""vfio_answers_test.py KERNEL PROGRAM MOAT: puts the same requests of VFIO to a real Linux, for an edu
and an NVMe device, and to the state machine of `moat run`. The answers must be equal, line by line."""
import difflib
import pathlib
import subprocess
import sys
import tempfile

VM = pathlib.Path(__file__).resolve().parents[2] / "scripts/vm"
sys.path.insert(0, str(VM))
import probe  # noqa: E402

SKIPPED = 77
LEAST_ANSWERS = {"stock": 5000, "iommufd": 500}
JOB = """
moat bind 00:04.0 && moat bind 00:05.0 || exit
{program} facts 00:04.0 00:05.0 >facts || exit
{program} linux facts >answers || exit
echo facts; cat facts
echo answers; cat answers
echo end
"""


def main():
    kernel, program, moat = sys.argv[1:4]
    reason = probe.reason_to_skip(kernel)
    if reason:
        print(f"SKIPPED: {reason}")
        return SKIPPED
    done = subprocess.run(
        [sys.executable, VM / "vm.py", "--kernel", kernel, "--program", program, "--program", moat,
         "--limit", "200", "--", "sh", "-c", JOB.format(program=pathlib.Path(program).name)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or "end" not in lines:
        print(done.stdout, done.stderr, sep="\n")
        return 1
    facts = lines[lines.index("facts") + 1:lines.index("answers")]
    answers = lines[lines.index("answers") + 1:lines.index("end")]
    return compare(program, facts, answers) or len(answers) < LEAST_ANSWERS[kernel]


def compare(program, facts, answers):
    """Asks the state machine of the same devices. Return: the exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".facts") as file:
        file.write("\n".join(facts) + "\n")
        file.flush()
        model = subprocess.run([program, "model", file.name], capture_output=True, text=True, check=False)
    if model.returncode:
        print(model.stderr)
        return 1
    found = list(difflib.unified_diff(answers, model.stdout.splitlines(), "Linux", "state machine",
                                      lineterm="", n=6))
    print("\n".join(found))
    print(f"{len(answers)} answers")
    return 1 if found else 0


sys.exit(main())
