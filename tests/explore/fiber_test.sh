#!/usr/bin/env bash
# fiber_check.cpp with one of the stack switches of lab/explore/fiber.cpp; exit 77 if a tool is
# missing.
#     fiber_test.sh native|boost|aarch64 SOURCE_FOLDER
set -eu
which=$1 source=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

skip() {
    echo "SKIPPED: $1"
    exit 77
}

emulator=()

# build_and_run COMPILER FLAG...: optimised and not.
build_and_run() {
    local level
    for level in -O0 -O2; do
        "$1" -std=c++23 -Wall -Wextra -Werror $level -I"$source" -I"$source/include" \
            "$source/tests/explore/fiber_check.cpp" "$source/lab/explore/fiber.cpp" "${@:2}" \
            -o "$folder/check"
        timeout 60 "${emulator[@]}" "$folder/check"
    done
}

case $which in
native)
    build_and_run "${CXX:-g++}"
    ;;
boost)
    [ -f /usr/include/boost/context/detail/fcontext.hpp ] || skip "no libboost-context-dev"
    build_and_run "${CXX:-g++}" -DMOAT_EXPLORE_BOOST_CONTEXT -lboost_context
    ;;
aarch64)
    compiler=$(command -v aarch64-linux-gnu-g++ aarch64-linux-gnu-g++-12 | head -1) || true
    [ -n "$compiler" ] || skip "no compiler for AArch64 (g++-aarch64-linux-gnu)"
    emulator=("$(command -v qemu-aarch64-static qemu-aarch64 | head -1)") || true
    [ -n "${emulator[0]}" ] || skip "no emulator of AArch64 programs (qemu-user-static)"
    build_and_run "$compiler" -static
    ;;
esac
