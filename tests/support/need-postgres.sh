#!/bin/sh
# Makes sure that the tests find a PostgreSQL server to start.
set -eu

found() {
    for program in /usr/lib/postgresql/*/bin/postgres; do
        [ -x "$program" ] && return 0
    done
    command -v postgres >/dev/null 2>&1 && command -v initdb >/dev/null 2>&1
}

found && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update && apt-get install -y --no-install-recommends postgresql || true
    found && exit 0
fi

echo "The tests need a PostgreSQL server. Run: sudo apt-get install -y postgresql" >&2
exit 1
