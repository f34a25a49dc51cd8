#!/usr/bin/env bash
# The library's reference and the pages of docs/, into build/docs/html; every warning is an error.
# `./dev docs` and the lint step call it.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."

mkdir -p build/docs
scripts/docs/rooms.py >build/docs/rooms.dox
doxygen docs/Doxyfile
echo "build/docs/html/index.html"
