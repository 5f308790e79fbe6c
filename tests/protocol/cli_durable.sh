#!/bin/bash
# What was answered with FUA, or flushed on any connection, is there after the server was killed; zeroes that must be
# no hole take space.
set -eu
here=$(realpath "$(dirname "$0")")
. "$here/cli_common.sh"
$python -c 'import nbd' 2>/dev/null || skip "python3-libnbd is not installed"

ok tarn pool create tank d0 d1 --file-size 256M
ok tarn volume create tank/v 64M
serve_now tank
for round in 1 2 3 4 5; do
    ok $python "$here/nbd_durable.py" write $round
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    serve_now tank
    ok $python "$here/nbd_durable.py" verify $round
done
serve_end
ok tarn pool check tank --data
echo "durable: passed"
