#!/bin/bash
# A guest moves from one QEMU to another on the same volumes, with requests running: both are connected at once for a
# while, the dirty log carries over what the server has written into the guest's memory, and every content verifies.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$tarn" pool create tank "$work/disk" --file-size 1G
"$tarn" volume create tank/split 64M
"$tarn" volume create tank/packed 64M
make_told tank
start_vhost_server tank
words=(--cpus 2 --memory 256 --timeout 300 --program "$DISKLOAD" --file "$lab/load=lab/load"
        --disk "vhost-user:$work/vhost/split.sock,num-queues=2"
        --disk "vhost-user:$work/vhost/packed.sock,num-queues=1,packed=on" --disk "$told_disk")
load=(sh /lab/load /dev/vdc /dev/vda /dev/vdb)

start_guest "${words[@]}" --qmp "$work/source-qmp" -- "${load[@]}"
source_works() {
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        [ "$(grep -c '^done' "$work/output")" -ge 3 ]
}
wait_until 150 source_works || fail "the guest does no work"

"$lab/run" "${words[@]}" --qmp "$work/target-qmp" --incoming "unix:$work/migration" -- "${load[@]}" \
        >"$work/target-output" 2>"$work/target-errors" &
target=$!
other=$target # ended with the rest
target_lives() {
        kill -0 "$target" 2>/dev/null || {
                cat "$work/target-output" "$work/target-errors" >&2
                fail "the second QEMU has ended"
        }
}
target_listens() {
        target_lives
        [ -S "$work/migration" ]
}
target_works() {
        target_lives
        [ "$(grep -c '^done' "$work/target-output")" -ge 3 ]
}
wait_until 60 target_listens || fail "the second QEMU does not wait for the guest"
"$lab/qmp" "$work/source-qmp" migrate "unix:$work/migration" || fail "the guest does not move"
"$lab/qmp" "$work/source-qmp" quit
wait "$guest" || true # its command did not come to its end there
guest=
wait_until 120 target_works || fail "the guest does no work where it has moved to"
tell tank
status=0
wait "$target" || status=$?
other=
[ $status = 0 ] || {
        cat "$work/output" "$work/target-output" "$work/target-errors" >&2
        fail "the guest ended with status $status"
}
[ "$(grep -c '^verified [1-9]' "$work/target-output")" = 2 ] || fail "not both disks were verified"
stop_server
"$tarn" pool check tank --data
