#!/bin/sh
# Makes sure that the tests find strace, which makes a disk fail on request.
set -eu

command -v strace >/dev/null 2>&1 && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update && apt-get install -y --no-install-recommends strace || true
    command -v strace >/dev/null 2>&1 && exit 0
fi

echo "The tests need strace. Run: sudo apt-get install -y strace" >&2
exit 1
