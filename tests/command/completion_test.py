#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Bash's completion, run by bash. Usage: completion_test.py MOAT"""
import subprocess
import sys

import command

SCRIPT = """
set -u
compopt() { REPLIES_BY_FILE=yes; }
source /dev/stdin <<<"$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
REPLIES_BY_FILE=no
_moat
echo "$REPLIES_BY_FILE"
printf '%s\\n' "${COMPREPLY[@]}"
complete -p moat >/dev/null
"""


def main() -> int:
    moat = sys.argv[1]
    script = command.run(moat, "completion", "bash").stdout
    wrong: list[str] = []

    def completed(*words: str) -> tuple[bool, set[str]]:
        done = subprocess.run(["bash", "-c", SCRIPT, "bash", script, "moat", *words],
                              capture_output=True, text=True, timeout=20, check=False)
        if done.returncode != 0 or done.stderr:
            wrong.append(f"{words}: bash says {done.stderr}")
        lines = done.stdout.splitlines() or ["no"]
        return lines[0] == "yes", set(lines[1:]) - {""}

    def expect(words: list[str], replies: set[str]) -> None:
        if (got := completed(*words)[1]) != replies:
            wrong.append(f"{' '.join(words)!r}: {sorted(got)}, expected {sorted(replies)}")

    commands = set(command.commands_of(moat))
    expect([""], commands)
    expect(["ex"], {"explain", "explore"})
    expect(["audit", "--ma"], {"--machine"})
    expect(["audit", "--machine", ""], {"soft", "qemu", "vfio"})
    expect(["audit", "--machine", "q"], {"qemu"})
    expect(["audit", "--json", "--color", ""], {"auto", "always", "never"})
    expect(["explore", "pud"], {"pud-slot"})
    expect(["explore", "pud-slot", "--variant", "two-load-"], {"two-load-reversed"})
    expect(["explore", "pud-slot", "--json", "--memory-model", "t"], {"tso"})
    expect(["stress", ""], set(command.commands_of(moat, "stress")))
    expect(["audit", "--nope"], set())
    for words in (["explain", ""], ["audit", "--html", ""], ["explore", "--replay", "x"]):
        if not completed(*words)[0]:
            wrong.append(f"{' '.join(words)!r}: no files are offered")
    if completed("audit", "--machine", "")[0]:
        wrong.append("files are offered for a machine")
    for path in command.all_paths(moat):
        options = {each for each in completed(*path, "--")[1]}
        if missing := {"--help", "--color"} - options if path else {"--help", "--version"} - options:
            wrong.append(f"moat {' '.join(path)} completes no {missing}")
    print("\n".join(wrong) if wrong else "ok")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
