#!/usr/bin/env bash
# package_test.sh CPACK CONFIG: installs the packages of a build in a root of their own
# (scripts/package/test.sh).
set -euo pipefail
cpack=$1 config=$2

skip() {
    printf '%s: Skipped\n%s\n' "${BASH_SOURCE[0]}:${BASH_LINENO[0]}" "$*"
    exit 77
}

[ "$(id -u)" = 0 ] || skip "dpkg enters its own root by chroot, which needs root"
for tool in dpkg dpkg-shlibdeps file busybox pkg-config ninja; do
    command -v "$tool" >/dev/null || skip "there is no $tool"
done
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkdir "$work/packages" "$work/root"
"$cpack" --config "$config" -B "$work/packages" >"$work/log" 2>&1 || { cat "$work/log" && exit 1; }
"$(dirname "$(realpath "$0")")/../../scripts/package/test.sh" "$work/packages" "$work/root"
