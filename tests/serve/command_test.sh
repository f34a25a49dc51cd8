#!/usr/bin/env bash
# `moat serve` and `moat audit --machine vfio-user:SOCKET` as a script uses them.
#     command_test.sh MOAT
set -u
moat=$1
folder=$(mktemp -d)
server=
trap '[ -n "$server" ] && kill "$server" 2>/dev/null; rm -rf "$folder"' EXIT
failed=0
export TMPDIR="$folder/temporary"
mkdir "$TMPDIR"

fail() {
    echo "$1"
    cat "$folder"/out "$folder"/err "$folder"/served
    failed=1
}

# serve ARGUMENT...: starts a server and returns once it listens.
serve() {
    : >"$folder/ready" # `tail` needs a file, and one without the line of the server before
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

touch "$folder/out" "$folder/err" "$folder/served" "$folder/messages"
serve --device nvme --socket "$folder/nvme" --device edu --socket "$folder/edu"
audit 0
shows 'no findings' out
audit 0 --seed 2 # the next client of the same device
"$moat" audit --machine "vfio-user:$folder/nvme" --list >"$folder/out" 2>"$folder/err" || fail "list"
shows 'class 010802' out
shows 'driver: nvme' out
shows 'twin socket' out
shows 'BAR0' out
shows 'MSI-X' out
"$moat" audit --machine "vfio-user:$folder/edu" --operations 20 >"$folder/out" 2>&1 || fail "edu"
"$moat" serve --device nvme --socket "$folder/nvme" 2>"$folder/err" >"$folder/out" && fail "two at one socket"
shows 'another server listens' err
ends 0
shows '4 clients' served

serve --device nvme --socket "$folder/nvme" --inject overrun:16 --after 2 --json "$folder/json" \
    --messages "$folder/messages" --trace "$folder/trace"
audit 1
shows '16 bytes past the end of "data"' out
shows "moat audit --machine vfio-user:$folder/nvme --seed 1" out
ends 1
shows 'times overrun' served
shows 'traceEvents' trace
shows '"cat":"mapping"' trace
[ -z "$(ls "$TMPDIR")" ] || fail "a temporary recording is left: $(ls "$TMPDIR")"
shows 'moat-messages 1' messages
shows '> 1 version 0 0 0 ' messages
shows '< 1 version 1 0 0 ' messages
shows '< 1 dma-read 0 0 0 ' messages
grep -qF twin_socket "$folder/messages" && fail "a twin socket, whose messages are not captured"
[ "$(grep -c '^connection$' "$folder/messages")" = 1 ] || fail "one connection was captured"

# Two clients of two devices in one recording: their mappings end with them.
serve --device nvme --socket "$folder/nvme" --device edu --socket "$folder/edu" --record "$folder/recording"
audit 0 --dma shared
audit 0
"$moat" audit --machine "vfio-user:$folder/edu" --operations 20 --dma shared >"$folder/out" 2>&1 || fail "edu"
ends 0
"$moat" replay "$folder/recording" --json >"$folder/out" 2>"$folder/err" || fail "moat replay: $?"
for fact in '"faults":0' '"live":0' '"damage":null'; do shows "$fact" out; done
"$moat" serve --device nvme --socket "$folder/nvme" --device edu --socket "$folder/edu" \
    --messages "$folder/messages" >"$folder/out" 2>"$folder/err" && fail "messages of two devices"
shows '--messages takes one --device' err

# Between the two, a proxy changes nothing.
mkfifo "$folder/behind.ready"
"$moat" serve --device nvme --socket "$folder/behind" >"$folder/behind.ready" 2>&1 &
behind=$!
read -r _ <"$folder/behind.ready"
serve --proxy "$folder/behind" --socket "$folder/nvme" --record "$folder/recording" --messages "$folder/messages"
audit 0
shows 'no findings' out
"$moat" devices --machine "vfio-user:$folder/nvme" >"$folder/out" 2>&1 || fail "devices"
shows '010802' out
ends 0
shows '2 clients' served
"$moat" replay "$folder/recording" >"$folder/out" 2>"$folder/err" || fail "moat replay: $?"
shows 'dma-map' messages
kill -TERM $behind
wait $behind

audit 3 # nobody listens
shows 'not found: no server listens' err
audit 2 --device nvme
exit $failed
