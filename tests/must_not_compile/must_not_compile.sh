#!/usr/bin/env bash
# must_not_compile.sh FILE INCLUDE COMPILER REGEX...: see CMakeLists.txt here.
set -u
file=$1 include=$2 compiler=$3
shift 3
compile=("$compiler" -std=c++23 -fsyntax-only -Wall -Wextra -Werror -I"$include" "$file")

if ! said=$(LC_ALL=C "${compile[@]}" -DMOAT_CONTROL 2>&1); then
    printf 'The control does not compile, so this case proves nothing:\n%s\n' "$said"
    exit 1
fi
if said=$(LC_ALL=C "${compile[@]}" 2>&1); then
    printf 'It compiled: %s\n' "$file"
    exit 1
fi
for regex in "$@"; do
    if ! grep -qE -- "$regex" <<<"$said"; then
        printf 'It failed, but not for the reason expected. No match for: %s\n%s\n' "$regex" "$said"
        exit 1
    fi
done
