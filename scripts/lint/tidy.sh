#!/usr/bin/env bash
# clang-tidy over every source, and over every header through one generated source a room.
# A source that passed is not looked at again until it, a header of it, or the list changes.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

units=build/lint/units
passed=build/lint/passed
rm -rf "$units"
mkdir -p "$units" "$passed"
for room in include/moat/*/; do
    room=$(basename "$room")
    find "include/moat/$room" -name '*.hpp' | sort | sed 's|include/\(.*\)|#include "\1"|' \
        >"$units/$room.cpp"
done

# tidy_one FILE
tidy_one() {
    local file=$1 key text status=0
    local flags=(-std=gnu++23 -Iinclude -Ibench -Itests -Wthread-safety)
    key=$(clang++-19 -E "${flags[@]}" "$file" 2>/dev/null | cat - .clang-tidy | sha256sum)
    key=$passed/${key%% *}
    if [ ! -f "$key" ]; then
        text=$(clang-tidy-19 --quiet "$file" -- "${flags[@]}" 2>/dev/null) || status=$?
        if [ "$status" != 0 ]; then
            printf '%s\n' "$text"
            return 1
        fi
        printf '%s' "$text" >"$key"
    fi
    cat "$key"
}
export -f tidy_one
export passed

for folder in "$units" src tools tests bench fuzz examples; do
    [ ! -d "$folder" ] || find "$folder" -name '*.cpp' -not -path '*/must_not_compile/*'
done | sort | xargs -P "$(nproc)" -I '{}' bash -c 'tidy_one {}'
