#!/bin/bash
# load.sh VHOSTLOAD - random reads, writes, zeroes, discards and flushes on the device at VHOST_SOCKET,
# every content checked by its stamp, in each kind of ring. Runs under peer.sh.
set -eu

load=$1
folder=$(mktemp -d "${TMPDIR:-/tmp}/tarn-load.XXXXXX")
trap 'rm -rf "$folder"' EXIT
failed=0

# What the device cannot do is skipped by name.
run() { # NAME OPTION...
	local name=$1 status=0
	shift
	"$load" --socket "$VHOST_SOCKET" "$@" >"$folder/out" 2>"$folder/err" || status=$?
	if [ $status = 0 ]; then
		echo "ok   $name"
	elif grep -q 'offers no packed rings' "$folder/err"; then
		echo "skip $name: $(cat "$folder/err")"
	else
		echo "FAIL $name: $(cat "$folder/err")"
		failed=1
	fi
}

plain=(--op randrw --verify --read-percent 50 --zero-percent 10 --discard-percent 10 --seconds 0.5
	--stamps "$folder/stamps" --length 8M)
mixed=("${plain[@]}" --flush-every 20)

run "split rings" "${mixed[@]}"
run "a block a time" "${mixed[@]}" --depth 1
run "four queues" "${mixed[@]}" --queues 4
run "no event index" "${mixed[@]}" --no-event-idx
run "no indirect tables" "${mixed[@]}" --no-indirect --segments 4
run "neither" "${mixed[@]}" --no-event-idx --no-indirect --depth 7
run "write-through" "${plain[@]}" --write-through
run "packed rings" "${mixed[@]}" --packed
run "packed, four queues, no event index" "${mixed[@]}" --packed --queues 4 --no-event-idx
run "packed, no indirect tables" "${mixed[@]}" --packed --no-indirect --segments 3
run "large blocks" --op randrw --verify --bs 256K --segments 64 --depth 8 --seconds 0.5 --offset 8M --length 16M
run "sectors" --op randrw --verify --bs 512 --seconds 0.5 --offset 24M --length 4M
run "everything, at the end" --op read --once --verify --stamps "$folder/stamps" --length 8M

# The checks themselves: somebody else's write is found, by its place.
"$load" --socket "$VHOST_SOCKET" --op write --once --offset 4M --length 4K >"$folder/out"
status=0
"$load" --socket "$VHOST_SOCKET" --op read --once --verify --stamps "$folder/stamps" --length 8M \
	>"$folder/out" 2>"$folder/err" || status=$?
if [ $status = 1 ] && grep -q 'offset 4194304 holds' "$folder/err"; then
	echo "ok   a foreign write is found"
else
	echo "FAIL a foreign write is not found: $status $(cat "$folder/err")"
	failed=1
fi
exit $failed
