#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws docs/overrun.svg, README's picture: the demo's audit of a disk that overran and reported success.

Usage: overrun_svg.py MOAT [--check]. With --check the picture stays as it is, and a stale one is exit status 1.
"""
import html
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/overrun.svg"
COMMAND = re.compile(r"moat (audit --machine qemu --device nvme --inject overrun [^|\\\n]*?) --html")
SKIPPED = 77

TONE = {"1;31": "bad", "32": "good", "1": "strong", "0": ""}
LINE, CHARACTER, MARGIN, BAR = 19, 7.85, 18, 30
STYLE = """
    text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d4d9e1;
           white-space: pre }
    .bad { fill: #ff7b72; font-weight: bold } .good { fill: #7ee787 } .strong { fill: #ffffff; font-weight: bold }
    .prompt { fill: #8b949e }
"""


def demo_command() -> str:
    """Return: the arguments of the demo's second audit, as ./dev runs it."""
    script = (ROOT / "dev").read_text().replace("\\\n", " ")
    return re.sub(r"\s+", " ", COMMAND.search(script)[1])


def spans(line: str) -> list[tuple[str, str]]:
    """Return: (tone, text) of each piece between two ANSI sequences."""
    pieces = re.split(r"\033\[([0-9;]*)m", line)
    tones = [""] + [TONE[code] for code in pieces[1::2]]
    return [(tone, text) for tone, text in zip(tones, pieces[0::2]) if text]


def draw(command: str, printed: str) -> str:
    # The seconds differ from run to run.
    steady = re.sub(r", \d+\.\d s$", "", printed, flags=re.MULTILINE)
    lines = [[("prompt", "$ "), ("strong", "moat " + command)]] + [spans(each) for each in steady.splitlines()]
    width = round(max(sum(len(text) for _, text in line) for line in lines) * CHARACTER + 2 * MARGIN)
    height = BAR + LINE * len(lines) + MARGIN
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
           'aria-label="moat names the buffer that a disk overran while it reported success">',
           f"  <style>{STYLE}  </style>",
           f'  <rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>']
    svg += [f'  <circle cx="{MARGIN + 18 * i}" cy="15" r="5" fill="#30363d"/>' for i in range(3)]
    for number, line in enumerate(lines):
        if not line:
            continue
        text = "".join(f'<tspan class="{tone}">{html.escape(words)}</tspan>' if tone else html.escape(words)
                       for tone, words in line)
        svg.append(f'  <text x="{MARGIN}" y="{BAR + LINE * (number + 1) - 5}" xml:space="preserve">{text}</text>')
    return "\n".join(svg + ["</svg>"]) + "\n"


def main() -> int:
    command = demo_command()
    done = subprocess.run([sys.argv[1], *command.split(), "--color", "always"], capture_output=True, text=True,
                          timeout=100, check=False)
    if done.returncode == 3 and not shutil.which("qemu-system-x86_64"):
        print(f"SKIPPED: {done.stderr.strip()}")
        return SKIPPED
    if done.returncode != 1:
        print(f"moat {command}: exit status {done.returncode} instead of 1\n{done.stdout}{done.stderr}")
        return 1
    picture = draw(command, done.stdout)
    if sys.argv[2:] != ["--check"]:
        PICTURE.write_text(picture)
    elif PICTURE.read_text() != picture:
        print("docs/overrun.svg is stale; run scripts/docs/overrun_svg.py MOAT")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
