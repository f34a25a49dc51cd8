#!/usr/bin/env bash
# Every check of the lint step, each in one line; called by `./dev lint`, which installs and
# configures what they need. The first check that fails does not hide the others.
set -uo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

log=build/log
mkdir -p "$log"
failed=()

# check NAME COMMAND...
check() {
    local name=$1 began=$SECONDS
    shift
    if "$@" >"$log/lint_$name.log" 2>&1 </dev/null; then
        printf '%-14s ok (%s s)\n' "$name" $((SECONDS - began))
    else
        printf '%-14s FAILED (%s s)\n' "$name" $((SECONDS - began))
        tail -n 100 "$log/lint_$name.log"
        failed+=("$name")
    fi
}

sources() {
    local folder
    for folder in include src lab tests bench fuzz examples; do
        [ ! -d "$folder" ] || find "$folder" -name '*.hpp' -o -name '*.cpp' -o -name '*.[ch]'
    done | sort
}

format() {
    sources | xargs -P "$(nproc)" -n 50 clang-format-19 --dry-run -Werror 2>&1 |
        sed -n 's/^\([^: ]*\):[0-9].*/not formatted: clang-format-19 -i \1/p' | sort -u
    return "${PIPESTATUS[1]}"
}

# Each header alone; all together by both compilers; the freestanding rooms also embedded.
headers() {
    local preset
    for preset in release clang; do
        cmake --build --preset "$preset" --target headers_lint -j "$(nproc)" || return
        "build/$preset/freestanding_example" || return
    done
}

# Length is a question, not a crime.
lengths() {
    echo "Longer than 500 lines:"
    sources | xargs wc -l | awk '$2 != "total" && $1 > 500 { print "  " $2 ": " $1 }'
    echo "Functions longer than 70 lines:"
    sed -n 's/^\(.*\): warning: \(.*\) exceeds recommended size.*/  \1: \2/p' \
        "$log/lint_tidy.log" | sed "s|$PWD/||" | sort -u
}

check format format
check layers scripts/lint/layers.py
check tests scripts/lint/tests.py
check freestanding scripts/lint/freestanding.py
check headers headers
check reference scripts/docs/build.sh
check tidy scripts/lint/tidy.py
lengths

[ ${#failed[@]} = 0 ] || {
    echo "lint: failed: ${failed[*]}"
    exit 1
}
echo "lint: ok"
