#!/bin/bash
# stop.sh VHOSTLOAD - a server stops in order while a guest's requests wait for their volume's limit, which would take them
# minutes; the guest goes on with the next server, and sees no error.
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"

load=$1
make_disk tarn
"$TARN" volume set pool/vol iops=1 >"$work/log" || fail "no limit"
start_server tarn
timeout 280 "$load" --socket "$VHOST_SOCKET" --op randwrite --depth 128 --verify --reconnect --length 8M \
	--stamps "$work/stamps" --seconds 3600 >"$work/out" 2>"$work/err" &
client=$!
waiting() {
	"$TARN" stat pool/vol --json >"$work/stat" 2>>"$work/log" || return 1
	[ "$(sed -n 's/.*"waiting": *\([0-9]*\).*/\1/p' "$work/stat" | sort -n | tail -1)" -ge 100 ]
}
until_waiting() {
	for ((tries = 400; tries > 0; tries--)); do
		! waiting || return 0
		kill -0 $client 2>/dev/null || fail "the load ended: $(cat "$work/err")"
		sleep 0.05
	done
	fail "nobody waits for the limit: $(cat "$work/stat")"
}
for _ in 1 2 3; do
	until_waiting
	begin=$SECONDS
	stop_server
	took=$((SECONDS - begin))
	[ $took -lt 60 ] || fail "a limit held up the server's stop for $took s"
	start_server tarn
done
until_waiting
"$TARN" volume set pool/vol iops=none >"$work/log" || fail "the limit stays"
sleep 0.5 # of load without a limit
if ! kill $client 2>/dev/null; then
	wait $client || true
	fail "the load ended: $(cat "$work/err")"
fi
wait $client 2>/dev/null || true
stop_server
start_server tarn
"$load" --socket "$VHOST_SOCKET" --op read --once --verify --length 8M --stamps "$work/stamps" --after-crash \
	>"$work/out" 2>"$work/err" || fail "at the end: $(cat "$work/err")"
stop_server
echo "stops: passed"
