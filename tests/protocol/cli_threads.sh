#!/bin/bash
# A server of several event loops: clients of two pools under verified load, and commands on both all the while. Then a
# loop for each pool, and guests of both at once.
set -eu
. "$(dirname "$0")/cli_common.sh"
: "${NBDLOAD:?names the nbdload binary}"
: "${VHOSTLOAD:?names the vhostload binary}"

ok tarn pool create one m1 --file-size 512M
ok tarn pool create two m2 --file-size 512M
for pool in one two; do
    ok tarn volume create $pool/load 64M
done
fails 1 "a number from 1 to" tarn serve one --threads 0
fails 1 "a number from 1 to" tarn serve one --threads 3x
serve_now one two --threads 3

# Until the file 'done' is there.
load() { # NAME POOL OFFSET
    until [ -e done ]; do
        "$NBDLOAD" --uri "nbd+unix:///$2/load?socket=$work/run/one.nbd" --op randrw --verify --stamps "stamps.$1" \
            --flush-every 64 --offset "$3" --length 32M --seconds 1 >"load.$1.log" 2>&1 || return 1
    done
}

loads=()
for pool in one two; do
    load $pool-low $pool 0 &
    loads+=($!)
    load $pool-high $pool 32M &
    loads+=($!)
    ok tarn volume create $pool/held 1M
    "$NBDLOAD" --uri "nbd+unix:///$pool/held?socket=$work/run/one.nbd" --op randwrite --seconds 1000 >held.$pool.log 2>&1 &
    server_pids+=($!) # ended with the test
done
for round in 1 2 3; do
    for pool in one two; do
        ok tarn snapshot create $pool/load@s$round
        ok tarn volume create $pool/new$round 10M
        ok tarn volume rename $pool/new$round $pool-$round
        ok tarn volume resize $pool/$pool-$round 20M
        ok tarn volume set $pool/$pool-$round iops=1000
        ok tarn pool status $pool --json
        ok tarn volume list $pool
        fails 1 "in use by NBD client" tarn volume delete $pool/held --yes
    done
done
for pool in one two; do
    ok tarn snapshot delete $pool/load@s2 --yes
    ok tarn volume delete $pool/$pool-1 --yes
    ok tarn pool check $pool --data
done
touch done
for load in "${loads[@]}"; do
    wait "$load" || die "a load failed"
done
for pool in one two; do
    ok tarn pool check $pool --data
    ok tarn volume delete $pool/held --yes --force
    ok tarn volume delete $pool/load --snapshots --yes
done
serve_end

# what a guest wrote is where it wrote it, though the other pool's guest wrote to the same places at the same time
guest() { # POOL OPTION...: contents are of its seed
    local pool=$1 seed=1
    shift
    [ "$pool" = one ] || seed=2
    timeout 60 "$VHOSTLOAD" --socket "$work/vhost/$pool/guest.sock" --seed $seed --verify --length 16M \
        --stamps "stamps.guest.$pool" "$@" >"guest.$pool.log" 2>&1
}
serve_now one two --threads 2 --vhost-user "$work/vhost"
guests=()
for pool in one two; do
    ok tarn volume create $pool/guest 16M
done
for pool in one two; do
    guest $pool --op randrw --queues 2 --flush-every 64 --seconds 1 &
    guests+=($!)
done
for pool in one two; do
    ok tarn snapshot create $pool/guest@s
    ok tarn volume list $pool
    ok tarn snapshot delete $pool/guest@s --yes
done
for guest in "${guests[@]}"; do
    wait "$guest" || die "a guest failed"
done
serve_end
serve_now one two --threads 2 --vhost-user "$work/vhost"
for pool in one two; do
    guest $pool --op read --once || die "what a guest of '$pool' wrote is not there"
done
serve_end
for pool in one two; do
    ok tarn pool check $pool --data
done
echo "threads: passed"
