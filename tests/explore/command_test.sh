#!/usr/bin/env bash
# `moat explore` as a script uses it: exit codes, JSON, replays, shards.
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

# shows TEXT [FILE]: out, or err
shows() {
    grep -qF -- "$1" "$folder/${2:-out}" && return
    echo "missing: $1"
    cat "$folder/${2:-out}"
    failed=1
}

expect 0 "proved" "$moat" explore pud-slot --variant two-load --json
shows '"executions":4'
shows '"exhausted":true'
shows '"violation":null'
expect 1 "refuted" "$moat" explore pud-slot --variant two-load --zappers 1 \
    --write-replay "$folder/replay"
shows 'schedule: W5 F5 W1 Z4 W2'
shows 'the failure, in walker:'
shows ' at lab/scenarios/pud_slot.cpp:'
expect 1 "replayed" "$moat" explore --replay "$folder/replay"
shows 'the walker descends'
sed -i 's/variant=two-load/variant=snapshot/' "$folder/replay"
expect 3 "a replay of another program" "$moat" explore --replay "$folder/replay"
echo nonsense >"$folder/replay"
expect 2 "no replay file" "$moat" explore --replay "$folder/replay"
expect 2 "an unknown variant" "$moat" explore pud-slot --variant new
expect 2 "an unknown scenario" "$moat" explore pud-slit
expect 2 "a shard that is none" "$moat" explore pud-slot --shard 3/3
expect 3 "a bound" "$moat" explore pud-slot --faulters 2 --most-executions 5
# `--seconds` ends a search however long one execution takes, with any number of jobs; timeout(1)
# exits with 124.
for options in "iova --strategy naive" "iova --strategy random --executions 1000000000" \
    "iova --strategy pct --executions 1000000000" "iova-flush --queuers 4 --flushers 3 --jobs 2" \
    "iova --strategy naive --shard 1/7" "iova --strategy random --executions 1000000000 --jobs 3"; do
    # shellcheck disable=SC2086 # words of a command line
    expect 3 "the seconds of $options" timeout 6 "$moat" explore $options --seconds 0.6 --json
    shows '"exhausted":false'
done
no_threads="no thread runs; configure at least one"
for strategy in dpor naive; do
    expect 2 "no thread" "$moat" explore pud-slot --walkers 0 --faulters 0 --strategy $strategy
    shows "$no_threads" err
done
expect 2 "no thread, in another scenario" "$moat" explore page-table --mappers 0 --unmappers 0 \
    --walkers 0
expect 2 "no thread, in shards" "$moat" explore iova-flush --queuers 0 --flushers 0 --shard 0/2
"$moat" explore pud-slot --variant old --write-replay "$folder/replay" >/dev/null
sed -i 's/walkers=1/walkers=0/; s/faulters=1/faulters=0/' "$folder/replay"
expect 2 "a replay of no thread" "$moat" explore --replay "$folder/replay"
shows "$no_threads" err
expect 3 "random schedules prove nothing" "$moat" explore pud-slot --strategy random \
    --executions 10 --json
shows '"exhausted":false'
for strategy in sleep naive bound pct random; do
    expect 1 "old by $strategy" "$moat" explore pud-slot --variant old --strategy $strategy --json
done
for model in tso c11; do
    expect 0 "snapshot under $model" "$moat" explore pud-slot --memory-model $model
done
for i in 0 1 2; do
    "$moat" explore pud-slot --faulters 2 --variant reload --shard $i/3 --json >"$folder/$i.json"
done
expect 0 "merged" "$moat" explore --merge "$folder"/{0,1,2}.json
shows '"executions":43'
expect 2 "a shard is missing" "$moat" explore --merge "$folder"/{0,2}.json
expect 2 "a shard twice" "$moat" explore --merge "$folder"/{0,1,2,2}.json
expect 1 "both stacks of a use after free" "$moat" explore publish-table --variant free-at-once
shows 'the free, step 12, in unmapper:'
shows '    moat::scenarios::publish_table::unmap'
shows 'the other access, a read before step 7, in walker:'
shows '    moat::scenarios::publish_table::walk_once at lab/scenarios/protocols/publish_table.hpp:'
shows 'the allocation of 24 bytes, in populator:'
for strategy in dpor sleep random; do
    expect 2 "a bound inside $strategy" "$moat" explore pud-slot --strategy $strategy --bound 1
done
expect 2 "a seed that is not used" "$moat" explore pud-slot --seed 5
expect 0 "symmetry" "$moat" explore pud-slot --walkers 2 --faulters 2 --variant reload --symmetry \
    --json
shows '"executions":4969'
shows '"symmetry":true'
shows 'threads that are alike begin in one order'
"$moat" explore pud-slot --variant old --most-steps 1234 --write-replay "$folder/replay" >/dev/null
grep -qx 'most-steps 1234' "$folder/replay" || {
    echo "the replay file does not carry the limit of steps"
    failed=1
}
exit $failed
