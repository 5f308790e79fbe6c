#!/bin/bash
# stop.sh VHOSTLOAD - a server stops in order while a guest's requests wait for their volume's limit, which would take them
# minutes, or for space in a full pool; the guest goes on with the next server, and sees no error.
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"
load=$1

start_load() {
	timeout 280 "$load" --socket "$VHOST_SOCKET" --op randwrite --depth 64 --verify --reconnect --length 8M \
		--stamps "$work/stamps" --seconds 3600 >"$work/out" 2>"$work/err" &
	client=$!
}
end_load() {
	if ! kill $client 2>/dev/null; then
		wait $client || true
		fail "the load ended: $(cat "$work/err")"
	fi
	wait $client 2>/dev/null || true
}
verify() {
	"$load" --socket "$VHOST_SOCKET" --op read --once --verify --length 8M --stamps "$work/stamps" --after-crash \
		>"$work/out" 2>"$work/err" || fail "at the end: $(cat "$work/err")"
}

stats() { # EXPRESSION of v, the volume's statistics
	echo '{"command":"stats","pool":"pool"}' | timeout 20 python3 -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
for v in json.loads(s.makefile().readline())["volumes"]:
    if v["name"] == "pool/vol":
        print(eval(sys.argv[2]))' "$TARN_RUNTIME_DIR/pool.control" "$1"
}
until_at_least() { # EXPRESSION N
	local have=
	for ((tries = 400; tries > 0; tries--)); do
		have=$(stats "$1")
		[ "${have:-0}" -lt "$2" ] || return 0
		kill -0 $client 2>/dev/null || fail "the load ended: $(cat "$work/err")"
		sleep 0.05
	done
	fail "$1 is $have, and not $2"
}
stop_at_once() {
	local begin=$SECONDS
	stop_server
	[ $((SECONDS - begin)) -lt 30 ] || fail "those who wait held up the server's stop for $((SECONDS - begin)) s"
}

make_disk tarn
"$TARN" volume set pool/vol iops=1 >"$work/log" || fail "no limit"
start_server tarn
start_load
for _ in 1 2 3; do
	until_at_least 'v["throttle"]["waiting"]' 60
	stop_at_once
	start_server tarn
done
until_at_least 'v["throttle"]["waiting"]' 60
"$TARN" volume set pool/vol iops=none >>"$work/log" || fail "the limit stays"
until_at_least 'v["write"]["bytes"]' $((16 << 20))
end_load
stop_server
start_server tarn
verify

# a full pool
rm "$work/stamps"
"$TARN" volume delete pool/vol --yes >>"$work/log" || fail "the volume stays"
"$TARN" volume create pool/vol 64M >>"$work/log" || fail "no volume"
"$TARN" volume create pool/fill 1G >>"$work/log" || fail "no second volume"
"$TARN" volume set pool/fill on-full=enospc >>"$work/log" || fail "no property"
for options in "--bs 1M" "--bs 4K --offset 600M"; do
	# shellcheck disable=SC2086  # words
	! "$load" --socket "$work/sockets/fill.sock" --op write --once $options >"$work/out" 2>"$work/err" ||
		fail "a volume larger than its pool was filled"
done
start_load
until_at_least 'v["waiting_for_space"]' 60
grep -q "pool 'pool' has no space left" "$work/log" || fail "the log does not say that the pool is full"
stop_at_once
start_server tarn
until_at_least 'v["waiting_for_space"]' 60
"$TARN" volume delete pool/fill --yes --force >>"$work/log" || fail "the second volume stays"
until_at_least 'v["write"]["bytes"]' $((16 << 20))
end_load
stop_server
start_server tarn
verify
stop_server
echo "stops: passed"
