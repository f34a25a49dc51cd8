#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Builds README's program by README's own lines for CMake and pkg-config, as installed.

Usage: readme_test.py BUILD SCRATCH COMPILER..., in the project's folder.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

EXPECTED = r"dma-buffer-overflow[\s\S]*receive ring[\s\S]*neighbour's first byte: 0"


def only(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    if len(found) != 1:
        raise SystemExit(f"README has {pattern!r} {len(found)} times")
    return found[0]


def run(command, **more) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, **more)
    if done.returncode != 0:
        raise SystemExit(f"{command}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> int:
    build, scratch, compilers = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), sys.argv[3:]
    readme = pathlib.Path("README.md").read_text()
    program = only(r"\[(examples/\w+\.cpp)\]\([^)]*\) is the whole program", readme)
    cmake = only(r"```cmake\n([\s\S]*?)```", readme)
    by_hand = only(r"`(g\+\+ [^`]*pkg-config[^`]*)`", readme)
    shutil.rmtree(scratch, ignore_errors=True)
    prefix = scratch / "prefix"
    run(["cmake", "--install", build, "--prefix", str(prefix)])
    environment = {**os.environ, "CMAKE_PREFIX_PATH": str(prefix),
                   "PKG_CONFIG_PATH": str(next(prefix.rglob("moat.pc")).parent)}
    wrong = []
    for compiler in compilers:
        for way in ("cmake", "pkg-config"):
            folder = scratch / f"{pathlib.Path(compiler).name}-{way}"
            folder.mkdir()
            shutil.copy(program, folder / "your_program.cpp")
            if way == "cmake":
                (folder / "CMakeLists.txt").write_text(
                    "cmake_minimum_required(VERSION 3.25)\nproject(yours LANGUAGES CXX)\n"
                    "add_executable(your_program your_program.cpp)\n" + cmake)
                run(["cmake", "-S", ".", "-B", ".", "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={compiler}"],
                    cwd=folder, env=environment)
                run(["cmake", "--build", "."], cwd=folder)
            else:
                run(["bash", "-c", by_hand.replace("g++", compiler, 1)], cwd=folder, env=environment)
            if not re.search(EXPECTED, printed := run(["./your_program"], cwd=folder)):
                wrong.append(f"{compiler} by {way}: the program prints {printed}")
    print("\n".join(wrong) if wrong else f"{program}: {len(compilers)} compilers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
