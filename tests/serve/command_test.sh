#!/usr/bin/env bash
# `moat serve` and `moat audit --machine vfio-user:SOCKET` as a script uses them.
#     command_test.sh MOAT
set -u
moat=$1
folder=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
failed=0

fail() {
    echo "$1"
    cat "$folder"/out "$folder"/err "$folder"/served
    failed=1
}

# serve ARGUMENT...: starts a server and returns once it listens.
serve() {
    "$moat" serve "$@" >"$folder/ready" 2>"$folder/served" &
    server=$!
    tail -f --pid="$server" "$folder/ready" 2>/dev/null | grep -qm1 ' at '
}

# ends STATUS: interrupts the server, which removes its sockets.
ends() {
    local got=0
    kill -TERM "$server"
    wait "$server" || got=$?
    server=
    [ "$got" = "$1" ] || fail "moat serve: exit $got, expected $1"
    [ -e "$folder/nvme" ] && fail "the socket is left"
}

# audit STATUS ARGUMENT...
audit() {
    local status=$1 got=0
    shift
    "$moat" audit --machine "vfio-user:$folder/nvme" --operations 20 "$@" \
        >"$folder/out" 2>"$folder/err" || got=$?
    [ "$got" = "$status" ] || fail "moat audit: exit $got, expected $status"
}

shows() {
    grep -qF -- "$1" "$folder/$2" || fail "missing: $1"
}

touch "$folder/out" "$folder/err" "$folder/served"
serve --device nvme --socket "$folder/nvme" --device edu --socket "$folder/edu"
audit 0
shows 'no findings' out
audit 0 --seed 2 # the next client of the same device
"$moat" audit --machine "vfio-user:$folder/edu" --operations 20 >"$folder/out" 2>&1 || fail "edu"
"$moat" serve --device nvme --socket "$folder/nvme" 2>"$folder/err" >"$folder/out" && fail "two at one socket"
shows 'another server listens' err
ends 0
shows '3 clients' served

serve --device nvme --socket "$folder/nvme" --inject overrun:16 --after 2 --json "$folder/json"
audit 1
shows '16 bytes past the end of "data"' out
shows "moat audit --machine vfio-user:$folder/nvme --seed 1" out
ends 1
shows 'times overrun' served

# Between the two, a proxy changes nothing.
mkfifo "$folder/behind.ready"
"$moat" serve --device nvme --socket "$folder/behind" >"$folder/behind.ready" 2>&1 &
behind=$!
read -r _ <"$folder/behind.ready"
serve --proxy "$folder/behind" --socket "$folder/nvme"
audit 0
shows 'no findings' out
"$moat" devices --machine "vfio-user:$folder/nvme" >"$folder/out" 2>&1 || fail "devices"
shows '010802' out
ends 0
shows '2 clients' served
kill -TERM $behind
wait $behind

audit 3 # nobody listens
shows 'not found: no server listens' err
audit 2 --device nvme
exit $failed
