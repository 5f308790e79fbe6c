#!/bin/bash
# kill_rounds.sh ROUNDS [SEED] - kill -9 of `tarn serve` under load, and what must be there afterwards is.
#
# Two NBD clients write stamped blocks all over two volumes, one of whole blocks and one of sectors, and flush
# now and then, while snapshots are taken and deleted. The server is killed at some moment; the next one must
# show for each block a version between the last that a flush covered and the last that was sent, whole. The
# snapshots that were answered must be there, and `pool check` must find nothing.
# TARN and NBDLOAD name the binaries.
set -eu

rounds=$1
RANDOM=${2:-1}
dir=$(mktemp -d)
server=
export TARN_STATE_DIR=$dir/state TARN_RUNTIME_DIR=$dir/run

cleanup() {
	if [ -n "$server" ]; then
		kill -KILL "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

die() {
	echo "FAIL round $round: $*"
	cat "$dir"/serve.log "$dir"/*.err 2>/dev/null || true
	exit 1
}

uri() {
	echo "nbd+unix:///pool/$1?socket=$dir/nbd.sock"
}

start() {
	"$TARN" serve pool --nbd "unix:$dir/nbd.sock" >"$dir/serve.log" 2>&1 &
	server=$!
	# The socket of the one that was killed is there still: only an answer says that it serves.
	for _ in $(seq 600); do
		"$NBDLOAD" --uri "$(uri whole)" --op read --once --length 4K >/dev/null 2>&1 && return
		kill -0 "$server" 2>/dev/null || die "the server does not start again"
		sleep 0.05
	done
	die "the server does not serve"
}

load() { # VOLUME BLOCK_SIZE
	"$NBDLOAD" --uri "$(uri "$1")" --op randwrite --bs "$2" --depth 32 --seconds 60 --flush-every 40 --verify \
		--stamps "$dir/$1.stamps" >"$dir/$1.out" 2>"$dir/$1.err"
}

check() { # VOLUME BLOCK_SIZE
	"$NBDLOAD" --uri "$(uri "$1")" --op read --bs "$2" --depth 128 --once --verify --after-crash \
		--stamps "$dir/$1.stamps" >"$dir/$1.out" 2>"$dir/$1.err" || die "$1: $(cat "$dir/$1.err")"
}

# Snapshots come and go until the server is killed; the names of those that must be there are in a file.
snapshots() {
	local n=0 name
	while :; do
		name=whole@s$round-$n
		"$TARN" snapshot create "pool/$name" >/dev/null 2>&1 || return 0
		echo "$name" >>"$dir/snapshots"
		if [ $((n % 2)) = 1 ]; then
			name=$(head -n 1 "$dir/snapshots")
			# From here on nobody knows, until it is answered and gone.
			sed -i 1d "$dir/snapshots"
			"$TARN" snapshot delete "pool/$name" >/dev/null 2>&1 || return 0
		fi
		n=$((n + 1))
	done
}

round=0
"$TARN" pool create pool "$dir/a.disk" "$dir/b.disk" --file-size 512M >/dev/null
"$TARN" volume create pool/whole 48M >/dev/null
"$TARN" volume create pool/sectors 8M >/dev/null
: >"$dir/snapshots"
start
for round in $(seq "$rounds"); do
	load whole 4K &
	whole=$!
	load sectors 512 &
	sectors=$!
	snapshots &
	snapshots=$!
	sleep "0.$((RANDOM % 90 + 10))"
	kill -KILL "$server"
	wait "$server" 2>/dev/null || true
	wait "$whole" && die "a client did not notice the end of its server"
	wait "$sectors" && die "a client did not notice the end of its server"
	wait "$snapshots" || true
	if [ $((round % 5)) = 0 ]; then
		"$TARN" pool check pool --data >"$dir/check.err" 2>&1 || die "pool check: $(cat "$dir/check.err")"
	fi
	start
	check whole 4K
	check sectors 512
	"$TARN" snapshot list pool/whole --json >"$dir/list.json"
	while read -r name; do
		grep -q "\"${name#*@}\"" "$dir/list.json" || die "the snapshot $name is gone"
	done <"$dir/snapshots"
done
kill -TERM "$server"
wait "$server" || die "the server did not end in order: $?"
server=
"$TARN" pool check pool --data >"$dir/check.err" 2>&1 || die "pool check: $(cat "$dir/check.err")"
echo "$rounds rounds, $(wc -l <"$dir/snapshots") snapshots left"
