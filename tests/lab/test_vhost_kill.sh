#!/bin/bash
# The server is killed and started again under a running guest, whose disks are split and packed: QEMU connects again,
# no request fails, and everything that was answered is there.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-3}
"$tarn" pool create tank "$work/disk" --file-size 1G
"$tarn" volume create tank/split 64M
"$tarn" volume create tank/packed 64M
make_told tank
start_vhost_server tank
start_guest --cpus 2 --timeout $((300 + 20 * rounds)) --program "$DISKLOAD" --file "$lab/load=lab/load" \
        --disk "vhost-user:$work/vhost/split.sock,num-queues=2" \
        --disk "vhost-user:$work/vhost/packed.sock,num-queues=2,packed=on" --disk "$told_disk" -- \
        sh /lab/load /dev/vdc /dev/vda /dev/vdb

lines() {
        grep -c '^done' "$work/output" || true
}
line_is_there() { # N
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        [ "$(lines)" -ge "$1" ]
}
for ((round = 1; round <= rounds; round++)); do
        # Some work between two kills.
        wait_until 120 line_is_there $(($(lines) + 2)) || fail "the guest does no work after $((round - 1)) kills"
        kill_server
        start_vhost_server tank
        printf 'killed, round %d\n' $round
done
wait_until 120 line_is_there $(($(lines) + 2)) || fail "the guest does no work after $rounds kills"
tell tank
status=0
wait "$guest" || status=$?
guest=
[ $status != 77 ] || exit 77
[ $status = 0 ] || {
        cat "$work/output" "$work/guest-errors" >&2
        fail "the guest ended with status $status"
}
[ "$(grep -c '^verified [1-9]' "$work/output")" = 2 ] || fail "not both disks were verified"
stop_server
"$tarn" pool check tank --data
