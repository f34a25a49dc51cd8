#!/usr/bin/env bash
# `moat devices`, `bind` and `unbind` on a sysfs of the test's own. Usage: devices_test.sh MOAT
set -euo pipefail
moat=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
devices=$root/bus/pci/devices

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect STATUS ARGUMENT...: afterwards the output is in $out.
expect() {
    local status=0 wanted=$1
    shift
    out=$("$moat" "$@" --sysfs "$root" 2>&1 </dev/null) || status=$?
    [ "$status" = "$wanted" ] || fail "moat $*: exit status $status, not $wanted: $out"
}

# function ADDRESS CLASS GROUP [DRIVER]
function_is() {
    mkdir -p "$devices/$1"
    echo 0x1b36 >"$devices/$1/vendor"
    echo 0x0010 >"$devices/$1/device"
    echo "$2" >"$devices/$1/class"
    echo -1 >"$devices/$1/numa_node"
    echo "0x800000000 0x8ffffffff 0x14220c" >"$devices/$1/resource"
    ln -s "../groups/$3" "$devices/$1/iommu_group"
    [ $# -lt 4 ] || ln -s "../../drivers/$4" "$devices/$1/driver"
}

expect 3 devices
[[ $out == *"is it mounted"* ]] || fail "no sysfs: $out"
mkdir -p "$root/bus/pci/drivers/nvme" "$devices"
function_is 0000:00:1f.0 0x060100 3
function_is 0000:00:05.0 0x010802 7 nvme
expect 0 devices
[[ $out == *"0000:00:05.0  1b36:0010  010802  7      -     4G       nvme"* ]] || fail "$out"
[ "$(wc -l <<<"$out")" = 3 ] || fail "a head and two functions: $out"
expect 0 devices --json
[[ $out == *'"group":7,"node":null,"driver":"nvme","bars":[4294967296,'* ]] || fail "$out"
expect 3 bind 00:1f.0
[[ $out == *bridge* ]] || fail "$out"
expect 3 bind 00:05.0
[[ $out == *"modprobe vfio-pci"* ]] || fail "$out"
expect 2 bind 5
[[ $out == *"0000:00:04.0"* ]] || fail "what an address looks like: $out"
expect 3 unbind 0000:00:05.0
[[ $out == *"is not bound to vfio-pci"* ]] || fail "$out"
