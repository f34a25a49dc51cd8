#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""RealSync costs nothing: compilers turn both functions of each pair in zero_cost.cpp into the same
instructions.

Usage: zero_cost_test.py COMPILER INCLUDE SOURCE
"""
import re
import subprocess
import sys
import tempfile

HEAD = re.compile(r"^<(\w+)>:$")
PADDING = re.compile(r"^(nop|data16|cs nop|xchg %ax,%ax)")


def disassemble(compiler: str, include: str, source: str) -> dict[str, list[str]]:
    """Return: each function's instructions and relocations, free of its name and place."""
    with tempfile.NamedTemporaryFile(suffix=".o") as compiled:
        subprocess.run([compiler, "-std=c++23", "-O2", "-fcf-protection=none", f"-I{include}", "-c",
                        source, "-o", compiled.name], check=True)
        text = subprocess.run(
            ["objdump", "-d", "-r", "--no-show-raw-insn", "--no-addresses", compiled.name],
            capture_output=True, text=True, check=True).stdout
    functions: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        head = HEAD.match(line)
        if head:
            name = head[1]
            functions[name] = []
        elif name and line.strip():
            plain = " ".join(line.split("#")[0].split())
            plain = plain.replace(f"<{name}", "<here")
            plain = re.sub(r"^call <.*>$", "call", plain)  # the next line names it
            if not PADDING.match(plain):
                functions[name].append(plain)
    return functions


def main() -> int:
    functions = disassemble(*sys.argv[1:4])
    pairs = [name.removesuffix("_policy") for name in functions if name.endswith("_policy")]
    wrong = []
    for pair in pairs:
        policy, by_hand = functions[f"{pair}_policy"], functions[f"{pair}_by_hand"]
        same = policy == by_hand
        print(f"{pair}: {len(policy)} and {len(by_hand)} instructions,",
              "the same" if same else "different")
        if same == (pair == "control"):
            wrong.append(pair)
            print("\n".join(f"    {a:60} {b}" for a, b in zip(policy, by_hand)))
    if len(pairs) < 4:
        wrong.append("too few pairs were found")
    print("failed:" if wrong else "ok", *wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
