#!/bin/bash
# takeover.sh VHOSTLOAD WHAT [OPTION]... - servers that follow one another under a load that does not know of it: no request
# fails, nothing that was answered is lost, and no connection ends. Options are vhostload's.
#
# WHAT: rounds N    so many takeovers in a row
#       fail        new servers that fail at each step of it: the old one goes on
#       killed      new servers that are killed at random moments, and at last the old one in the middle: the load connects
#                   anew then
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"
taker=$(dirname "$(readlink -f "$0")")/taker.py
python=/usr/bin/python3
[ -x $python ] || python=python3

load=$1 what=$2
shift 2
rounds=10
if [ "$what" = rounds ]; then
	rounds=$1
	shift
fi
case $what in
killed) options=(--reconnect) ;;
*) options=() ;;
esac

client=
# shellcheck disable=SC2317  # called by the trap
clean_up_all() {
	[ -z "$client" ] || kill -9 "$client" 2>/dev/null || true
	clean_up
}
trap clean_up_all EXIT

# Another server in its place; $server is its pid then.
take_over() {
	local old=$server tries=1200 status=0
	n_servers=$((n_servers + 1))
	log=$work/log.$n_servers
	"$TARN" serve pool --takeover >"$log" 2>&1 &
	server=$!
	until grep -q '^  control' "$log"; do
		kill -0 "$server" 2>/dev/null || fail "the new server ended: $(cat "$log")"
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "the new server does not serve"
		sleep 0.05
	done
	wait "$old" || status=$?
	[ $status = 0 ] || fail "the old server's exit status is $status"
	rested+=("$(sed -n 's/.*taken over from process .*rested for \([0-9]*\) ms.*/\1/p' "$log")")
	[ -n "${rested[-1]}" ] || fail "it does not say so: $(cat "$log")"
	[ "${rested[-1]}" -lt 10000 ] || fail "it took ${rested[-1]} ms"
}

# A new server that fails; the old one serves on, and says why.
refuse() { # PATTERN MODE [PID]
	local before after
	before=$(grep -c 'this server goes on' "$log" || true)
	timeout 60 $python "$taker" "$work/run/pool.control" pool "${@:2}" >"$work/taker" 2>&1 ||
		fail "taker $2: $(cat "$work/taker")"
	for ((tries = 600; tries > 0; tries--)); do
		after=$(grep -c 'this server goes on' "$log" || true)
		[ "$after" = "$before" ] || break
		sleep 0.05
	done
	grep 'this server goes on' "$log" | tail -1 | grep -q "$1" || fail "$2: $(tail -1 "$log")"
	kill -0 "$server" || fail "$2: the old server has ended"
	still_going "$2"
}

n_writes() {
	"$TARN" volume show pool/vol --json 2>"$work/err2" | $python -I -S -c '
import json, sys
print(sum(c["writes"] for a in json.load(sys.stdin)["attached"] for c in a["clients"]))' 2>/dev/null || echo -1
}

# The load goes on to get answers. What it has got is counted from one server to the next.
still_going() { # AFTER
	local begin now=-1
	begin=$(n_writes)
	[ "$begin" -ge "$last_writes" ] || fail "after $1: $last_writes writes became $begin: $(cat "$work/err2" "$work/err")"
	for ((tries = 600; tries > 0 && now <= begin; tries--)); do
		kill -0 "$client" 2>/dev/null || fail "after $1: the load ended: $(cat "$work/err")"
		sleep 0.05
		now=$(n_writes)
	done
	[ "$now" -gt "$begin" ] || fail "after $1: nothing is answered any more"
	last_writes=$now
}

n_servers=0 n_taken=0 last_writes=0 log=$work/log
rested=()
make_disk tarn
start_server tarn
timeout 300 "$load" --socket "$VHOST_SOCKET" --op randrw --read-percent 40 --verify "${options[@]}" --length 8M \
	--stamps "$work/stamps" --seconds 3600 "$@" >"$work/out" 2>"$work/err" &
client=$!
for ((tries = 600; tries > 0; tries--)); do
	[ ! -e "$work/stamps" ] || break
	kill -0 $client 2>/dev/null || fail "the load ended: $(cat "$work/err")"
	sleep 0.05
done

case $what in
rounds)
	for ((round = 1; round <= rounds; round++)); do
		sleep "0.$((RANDOM % 200 + 100))" # a random moment is what is wanted
		take_over
		still_going "round $round"
	done
	;;
fail)
	# Who has gone before the server reads of him is not heeded; else it finds him gone.
	$python "$taker" "$work/run/pool.control" pool asked
	still_going asked
	refuse 'it does not take what is handed over\|it has ended' torn
	refuse 'it has ended' handed
	refuse 'the test does not want to' error
	refuse 'something else' wrong
	take_over
	refuse 'it was not ready in 10 s' silent
	# One that has no room for the descriptors.
	(
		ulimit -n 16
		exec "$TARN" serve pool --takeover
	) >"$work/new" 2>&1 && fail "a server without descriptors takes over"
	grep -q 'cannot take over: \|Too many open files' "$work/new" || fail "it says: $(cat "$work/new")"
	still_going "a server without descriptors"
	take_over
	;;
killed)
	for ((round = 1; round <= rounds; round++)); do
		before=$(grep -c 'has taken over' "$log" || true)
		"$TARN" serve pool --takeover >"$work/new" 2>&1 &
		new=$!
		sleep "0.0$((RANDOM % 90 + 10))" # a random moment is what is wanted
		kill -9 $new 2>/dev/null || true
		wait $new 2>/dev/null || true
		# Either it was too early, or it had taken over: then nobody serves, and the old one ends, which takes its time.
		# (A pool that nobody serves is opened by who asks.)
		for ((tries = 600; tries > 0; tries--)); do
			kill -0 "$server" 2>/dev/null || break
			if [ "$(grep -c 'has taken over' "$log" || true)" = "$before" ] && [ "$(n_writes)" != -1 ]; then
				break
			fi
			sleep 0.05
		done
		if ! kill -0 "$server" 2>/dev/null; then
			status=0
			wait "$server" || status=$?
			[ $status = 0 ] || fail "round $round: the old server's exit status is $status"
			start_server tarn
			n_taken=$((n_taken + 1))
		fi
		last_writes=0
		still_going "round $round"
	done
	echo "$n_taken of $rounds had taken over when they were killed"
	timeout 60 $python "$taker" "$work/run/pool.control" pool kill "$server" >"$work/taker" 2>&1 ||
		fail "taker: $(cat "$work/taker")"
	wait "$server" 2>/dev/null || true
	start_server tarn
	last_writes=0
	still_going "the death of the old server"
	;;
esac

if ! kill $client 2>/dev/null; then
	wait $client || true
	fail "the load ended: $(cat "$work/err")"
fi
wait $client 2>/dev/null || true
client=
stop_server
start_server tarn
# What the load had in flight at its own end may be old or new, as after a crash.
"$load" --socket "$VHOST_SOCKET" --op read --once --verify --length 8M --stamps "$work/stamps" --after-crash \
	>"$work/out" 2>"$work/err" || fail "at the end: $(cat "$work/err")"
stop_server
[ ${#rested[@]} = 0 ] || echo "front ends rested for ms: ${rested[*]}"
