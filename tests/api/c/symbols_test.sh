#!/usr/bin/env bash
# symbols_test.sh NM LIBRARY LIST HEADER: the library exports exactly the symbols of the list, each
# with the version that the list names, and each is a function of the header.
set -euo pipefail
export LC_ALL=C
nm=$1 library=$2 list=$3 header=$4

found=$("$nm" -D --defined-only "$library" | sed -nE "s/^[0-9a-f]+ ([^A] .*)/\1/p" | sort)
if ! diff -u "$list" <(printf '%s\n' "$found"); then
    echo "The exported symbols are not those of $list." >&2
    echo "What is new goes into a version of its own in src/api/c/moat.map; nothing goes away." >&2
    exit 1
fi
declared=$(grep -oE '^MOAT_API [^(]*\(' "$header" | grep -oE 'moat_[a-z_]+\(' | tr -d '(' | sort)
exported=$(sed -n 's/^T \(.*\)@@.*/\1/p' "$list" | sort)
diff -u <(printf '%s\n' "$declared") <(printf '%s\n' "$exported")
