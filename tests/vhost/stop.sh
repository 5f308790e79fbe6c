#!/bin/bash
# stop.sh VHOSTLOAD - a server stops in order while a guest's requests wait for their volume's limit, which would take them
# minutes, or for space in a full pool; the guest goes on with the next server, and sees no error.
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"
load=$1

at=0 # where the load is in its volume
start_load() {
	rm -f "$work/stamps"
	timeout 280 "$load" --socket "$VHOST_SOCKET" --op randwrite --depth 64 --verify --reconnect --offset $at --length 8M \
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
	"$load" --socket "$VHOST_SOCKET" --op read --once --verify --offset $at --length 8M --stamps "$work/stamps" --after-crash \
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

# a full pool: those who wait go on once there is space, whoever makes it
fill_pool() { # OFFSET OFFSET: what is left of it, by large blocks from the one on and by small ones from the other
	local options
	for options in "--bs 1M --offset $1" "--bs 4K --offset $2"; do
		# shellcheck disable=SC2086  # words
		! "$load" --socket "$work/sockets/fill.sock" --op write --once $options >"$work/out" 2>"$work/err" ||
			fail "a volume larger than its pool was filled"
	done
}
wait_for_space() { # a load that is new to its part of the volume comes to wait
	start_load
	until_at_least 'v["waiting_for_space"]' 60
}
goes_on_after() { # COMMAND...
	"$TARN" "$@" >>"$work/log" 2>&1 || fail "'$*' failed"
	until_at_least 'v["write"]["bytes"]' $((16 << 20))
	end_load
	stop_server
	start_server tarn
	verify
}

"$TARN" volume delete pool/vol --yes >>"$work/log" || fail "the volume stays"
"$TARN" volume create pool/vol 64M >>"$work/log" || fail "no volume"
for volume in fill past; do
	"$TARN" volume create pool/$volume 2G >>"$work/log" || fail "no other volume"
	"$TARN" volume set pool/$volume on-full=enospc >>"$work/log" || fail "no property"
done
"$load" --socket "$work/sockets/past.sock" --op write --once --bs 1M --length 64M >"$work/out" 2>"$work/err" ||
	fail "64 MiB were not written: $(cat "$work/err")"
"$TARN" snapshot create pool/past@s >>"$work/log" || fail "no snapshot"
"$TARN" volume resize pool/past 1M --yes >>"$work/log" || fail "the volume does not shrink"
fill_pool 0 600M
wait_for_space
grep -q "pool 'pool' has no space left" "$work/log" || fail "the log does not say that the pool is full"
stop_at_once
start_server tarn
until_at_least 'v["waiting_for_space"]' 60
goes_on_after snapshot delete pool/past@s --yes

at=$((8 << 20))
fill_pool 700M 800M
wait_for_space
goes_on_after pool add pool "$work/disk2" --file-size 64M

at=$((16 << 20))
fill_pool 900M 1000M
wait_for_space
goes_on_after volume delete pool/fill --yes --force
stop_server
echo "stops: passed"
