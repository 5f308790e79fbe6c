#!/bin/bash
# One server, hundreds of volumes, all of them in use over both protocols at the same time.
set -eu
. "$(dirname "$0")/cli_common.sh"
: "${VHOSTLOAD:?names the vhostload binary}"
script=$(readlink -f "$0")
N=300

ok tarn pool create tank d1 d2 --file-size 512M
serve_now tank --vhost-user "$work/vhost" --threads 2
mkfifo go
"$python" "${script%/*}/hundreds.py" "$work/run/tank.control" "$work/run/tank.nbd" "$work/vhost" $N "$VHOSTLOAD" <go >said 2>hundreds.log &
client=$!
exec 9>go
for _ in $(seq 2400); do
    [ ! -s said ] || break
    kill -0 $client 2>/dev/null || die "the client has failed"
    sleep 0.05
done
same "$(cat said)" ready "the client"

ok tarn volume list tank --json
same "$(json '["volumes"].__len__()')" $N "volumes"
for i in 0 $((N / 2)) $((N - 1)); do
    ok tarn volume show tank/v$i --json
    same "$(json '["attached"][0]["clients"].__len__()')" 1 "front ends of v$i"
    fails 1 "in use by NBD client.*vhost-user" tarn volume delete tank/v$i --yes
done
ok tarn stat tank --count 1 --json
kill -TERM "$server"
echo >&9
wait "$server" || die "the server failed at its end"
wait "$client" || die "the client failed at its end"
ok tarn pool check tank --data
ok tarn volume list tank --json
same "$(json '["volumes"].__len__()')" $N "volumes afterwards"
echo "hundreds: passed"
