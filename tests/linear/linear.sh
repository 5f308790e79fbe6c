#!/bin/bash
# linear.sh ROUNDS [OPTION]... - what concurrent clients see of volumes whose server is killed and taken over from is what
# disks may show. Each round has a new pool; its seed is printed. Options are linear's.
# TARN and LINEAR name the binaries; a history that is not in order is kept in KEEP, or the folder for temporary files.
set -eu

rounds=$1
shift
export TARN_STATE_DIR TARN_RUNTIME_DIR
dir=
keep=${KEEP:-${TMPDIR:-/tmp}}

# shellcheck disable=SC2317  # called by the trap
clean_up() {
	[ -z "$dir" ] || rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

fail() {
	echo "FAILED: round $round, seed $seed: $1"
	tail -n 5 "$dir"/serve.*.log 2>/dev/null || true
	if mv "$dir/history" "$keep/linear-$seed.history" 2>/dev/null; then
		echo "the history is in $keep/linear-$seed.history: linear --judge looks at it again"
	fi
	exit 1
}

for round in $(seq "$rounds"); do
	seed=$((RANDOM * 32768 + RANDOM))
	dir=$(mktemp -d "${TMPDIR:-/tmp}/tarn-linear.XXXXXX")
	TARN_STATE_DIR=$dir/state TARN_RUNTIME_DIR=$dir/run
	mkdir "$dir/vhost"
	"$TARN" pool create pool "$dir/a.disk" "$dir/b.disk" --file-size 512M >"$dir/out"
	for volume in mixed guest lossy; do
		"$TARN" volume create "pool/$volume" 16M >"$dir/out"
	done
	"$LINEAR" --tarn "$TARN" --pool pool --folder "$dir" --seed $seed --history "$dir/history" "$@" ||
		fail "see above"
	"$TARN" pool check pool --data >"$dir/out" 2>&1 || fail "pool check: $(cat "$dir/out")"
	rm -rf "$dir"
	dir=
done
