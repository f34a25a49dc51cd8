#!/usr/bin/env bash
# `moat explain` on real logs against golden files, its exit statuses, and its JSON.
# Usage: explain_test.sh MOAT DATA; MOAT_UPDATE_GOLDEN=1 writes the files anew.
set -euo pipefail
moat=$1
data=$2
out=$(mktemp)
trap 'rm -f "$out"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect STATUS GOLDEN ARGUMENT...
expect() {
    local status=0 wanted=$1 golden=$data/explain/$2
    shift 2
    "$moat" explain "$@" >"$out" </dev/null || status=$?
    [ "$status" = "$wanted" ] || fail "moat explain $*: exit status $status, not $wanted"
    [ -z "${MOAT_UPDATE_GOLDEN:-}" ] || cp "$out" "$golden"
    diff -u "$golden" "$out" || fail "moat explain $*: other words than in $golden"
}

expect 1 intel_type1.txt "$data/intel-6.12.117-type1.txt"
expect 1 intel_iommufd.txt "$data/intel-6.12.117-iommufd.txt"
expect 1 virtio.txt "$data/virtio-iommu-6.12.117.txt"
expect 1 virtio.json --json "$data/virtio-iommu-6.12.117.txt"
expect 1 golden_lines.txt "$data/golden_lines.txt"
expect 1 traced.txt "$data/explain/traced.log"
expect 1 traced.json --json "$data/explain/traced.log"
expect 0 nothing.txt -

"$moat" explain - <"$data/intel-6.12.117-type1.txt" >"$out" && fail "faults from standard input: 0"
cmp -s "$out" "$data/explain/intel_type1.txt" || fail "standard input is read as a file is"
status=0
"$moat" explain "$data/no such file" 2>/dev/null || status=$?
[ $status = 2 ] || fail "a file that is not there: exit status $status"
status=0
echo "DMAR: DRHD: handling fault status reg 2" | "$moat" explain >"$out" || status=$?
[ $status = 3 ] && grep -q "1 line belongs to a fault whose own line" "$out" ||
    fail "the status of a fault without its line: exit status $status"
head -c 100000 "$moat" | "$moat" explain >/dev/null || fail "a program is no log with faults"
