#!/bin/sh
# A filter of Doxygen's: a header, and which room's group it belongs to.
cat "$1"
inside=${1#*include/moat/}
case $inside in
*/*) printf '/** \\file\n * \\ingroup room_%s\n */\n' "${inside%%/*}" ;;
esac
