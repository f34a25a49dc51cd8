#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# `moat stress bar-walk` as a user calls it. Usage: stress_test.sh MOAT
set -uo pipefail
moat=$1
failed=0

# expect STATUS DESCRIPTION COMMAND...
expect() {
    local wanted=$1 what=$2 got=0
    shift 2
    out=$("$@" 2>&1) || got=$?
    [ "$got" = "$wanted" ] && return
    printf '%s: exit %s, not %s: %s\n%s\n' "$what" "$got" "$wanted" "$*" "$out"
    failed=1
}

# shows TEXT
shows() {
    [[ $out == *"$1"* ]] && return
    printf 'missing: %s\n%s\n' "$1" "$out"
    failed=1
}

expect 0 "the reported case" "$moat" stress bar-walk --time 1
shows 'leaves lost to readers: 0'
shows 'clean'
expect 0 "a BAR of mixed leaves, as JSON" \
    "$moat" stress bar-walk --bar 201879191552 --readers 1 --time 0.5 --json
shows '"bar_bytes":201879191552'
shows '"leaves_lost":0'
shows '"error":null'
shows '"clean":true'
expect 2 "a device of no machine" "$moat" stress bar-walk 00:06.0
expect 2 "a BAR for a device" "$moat" stress bar-walk --machine vfio --bar 1G
# With VFIO on this host the command starts and ends without a device, or refuses to start, as its
# kernel requires.
"$moat" stress bar-walk --machine vfio 00:1f.7 --kernel-config /dev/null >/dev/null 2>&1
[ $? = 3 ] || { echo "vfio without such a device"; failed=1; }
config=$(mktemp)
echo CONFIG_64BIT=y >"$config"
expect 2 "a kernel without large leaves is not affected" \
    "$moat" stress bar-walk --machine vfio nonsense --kernel-config "$config"
shows 'CVE-2026-31456: not affected'
rm "$config"
expect 2 "a BAR that is none" "$moat" stress bar-walk --bar 1000
exit $failed
