#!/usr/bin/env bash
# `moat audit` as a script uses it: exit codes, JSON, and a finding's command run alone.
#     command_test.sh MOAT
set -u
moat=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0

# expect STATUS DESCRIPTION COMMAND...: runs COMMAND; its output stays in $folder/out.
expect() {
    local status=$1 what=$2 got=0
    shift 2
    "$@" >"$folder/out" 2>"$folder/err" || got=$?
    [ "$got" = "$status" ] && return
    echo "$what: exit $got, expected $status"
    cat "$folder/out" "$folder/err"
    failed=1
}

# shows TEXT [FILE]
shows() {
    grep -qF -- "$1" "$folder/${2:-out}" && return
    echo "missing: $1"
    cat "$folder/${2:-out}"
    failed=1
}

expect 0 "the devices" "$moat" audit --list
shows 'virtio-blk-direct'
expect 0 "soft devices behave" "$moat" audit
shows 'nvme (soft, 0000:00:05.0): 120 operations'
shows 'submission queue             0 / 3072'
shows 'no findings'
expect 0 "the same as JSON" "$moat" audit --device edu --operations 50 --seed 3 --json
shows '"schema":"moat.audit/1"'
shows '"operations":50'
shows '"findings":0'
expect 1 "an overrun" "$moat" audit --device nvme --inject overrun:16 --seed 5
shows 'wrote-outside: nvme, "identify", 16 bytes past the end of "data"'
shows 'success-though-blocked'
command=$(grep -m1 -A2 '^== wrote-outside: nvme, "read"' "$folder/out" | sed -n 's/^   moat //p')
# shellcheck disable=SC2086 # words of a command line
expect 1 "the finding's own command" "$moat" $command
shows '1 operation,'
shows 'wrote-outside: nvme, "read", 16 bytes past the end of "data"'

# The command that a finding prints reproduces it alone, for each class.
declare -A again
for fault in overrun underrun late stale read-only short-transfer short-buffer no-invalidate \
    wrong-data; do
    expect 1 "$fault" "$moat" audit --inject $fault --json
    shows '"schema":"moat.finding/1"'
    grep -F '"moat.finding/1"' "$folder/out" >"$folder/findings"
    while read -r finding; do
        class=$(sed -n 's/.*"class":"\([^"]*\)".*/\1/p' <<<"$finding")
        command=$(sed -n 's/.*"command":"moat \([^"]*\)".*/\1/p' <<<"$finding")
        [ -n "${again[$class]:-}" ] && continue
        again[$class]=$fault
        # shellcheck disable=SC2086 # words of a command line
        expect 1 "$class alone" "$moat" $command --json
        shows "\"class\":\"$class\""
    done <"$folder/findings"
done
for class in wrote-outside read-outside success-though-blocked touched-after-completion \
    left-unwritten wrong-data; do
    [ -n "${again[$class]:-}" ] || { echo "no finding of class $class" && failed=1; }
done
expect 0 "a large guard, at one end" "$moat" audit --guard 64k --placement right --operations 30
expect 0 "for a time" "$moat" audit --device nvme --time 0.2
expect 2 "an unknown fault" "$moat" audit --inject nothing
expect 0 "a device by its address" "$moat" audit --device 0000:00:04.0 --operations 20
shows 'edu (soft, 0000:00:04.0): 20 operations'
expect 0 "two devices" "$moat" audit --device 00:04.0 --device nvme --operations 20
shows 'edu (soft, 0000:00:04.0): 20 operations'
shows 'nvme (soft, 0000:00:05.0): 20 operations'
expect 2 "an address where nothing is" "$moat" audit --device 00:1f.7
shows 'nvme (0000:00:05.0) edu (0000:00:04.0)' err
expect 2 "an unknown device" "$moat" audit --device floppy
expect 2 "a device of another machine" "$moat" audit --device ahci
expect 2 "cases that are none" "$moat" audit --case 5-3
expect 2 "an unknown machine" "$moat" audit --machine attic
expect 3 "more bytes than edu has" "$moat" audit --device edu --inject short-buffer:5000
shows 'changed none of' err
# Injections that have no effect in the requested cases: the device's own, and the driver's.
for fault in stale no-invalidate short-buffer:1048576; do
    expect 3 "$fault in one case" "$moat" audit --device edu --case 0 --inject $fault
    shows "moat audit: edu (soft): $fault changed none of 1 operations" err
done
expect 0 "a flush has no data" "$moat" audit --device nvme --case 35 --json
shows '"data_bytes":0,'
for fault in overrun underrun late stale read-only short-transfer short-buffer no-invalidate \
    wrong-data; do
    expect 3 "$fault of a flush" "$moat" audit --device nvme --case 35 --inject $fault
    shows "moat audit: nvme (soft): $fault changed none of 1 operations" err
done
expect 3 "no QEMU" env PATH=/nonexistent "$moat" audit --machine qemu --device nvme
shows 'moat audit: nvme (qemu): ' err
shows 'qemu-system-x86_64 is not in PATH' err
exit $failed
