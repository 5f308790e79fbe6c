#!/bin/bash
# kill.sh PEER VHOSTLOAD ROUNDS [OPTION]... - the server is killed again and again under a load that goes on with the
# next one, as a virtual machine does: no request fails, and everything that was answered is there. Options are vhostload's.
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"

peer=$1 load=$2 rounds=$3
shift 3
make_disk "$peer"
start_server "$peer"
timeout 300 "$load" --socket "$VHOST_SOCKET" --op randrw --read-percent 40 --verify --reconnect --length 8M \
	--stamps "$work/stamps" --seconds 3600 "$@" >"$work/out" 2>"$work/err" &
client=$!
# Who has no server at his start gives up: the stamps are there once it is connected.
for ((tries = 600; tries > 0; tries--)); do
	[ ! -e "$work/stamps" ] || break
	kill -0 $client 2>/dev/null || break
	sleep 0.05
done
# At the end the client, told by nobody, goes on: only what it says of a failure counts.
for ((round = 1; round <= rounds; round++)); do
	sleep "0.$((RANDOM % 400 + 100))" # a random moment is what is wanted
	kill -0 $client 2>/dev/null || break
	kill_server
	start_server "$peer"
done
sleep 0.3
if ! kill $client 2>/dev/null; then
	wait $client || true
	fail "round $round: $(cat "$work/err")"
fi
wait $client 2>/dev/null || true
stop_server
start_server "$peer"
# What the load had in flight at its own end may be old or new, as after a crash.
"$load" --socket "$VHOST_SOCKET" --op read --once --verify --length 8M --stamps "$work/stamps" --after-crash \
	>"$work/out" 2>"$work/err" || fail "at the end: $(cat "$work/err")"
stop_server
echo "$((round - 1)) kills"
