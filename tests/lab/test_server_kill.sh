#!/bin/bash
# ext4 on a volume survives kill -9 of the server under load: the machine loses power with it, and
# after a restart e2fsck finds nothing and every file is there whose fsync had answered.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-3}
uri="nbd+unix:///tank/fs?socket=$work/nbd"
last=0
guest_arguments=(--disk "$uri" --program mke2fs --program e2fsck --program sync --file "$lab/stamps=lab/stamps")

newest_stamp() {
        sed -n 's/^stamp \([0-9]*\)\r\?$/\1/p' "$work/output" | tail -1
}

stamps_reach() {
        kill -0 "$guest" 2>/dev/null || {
                cat "$work/output" "$work/guest-errors"
                wait "$guest" || [ $? != 77 ] || exit 77
                fail "the guest ended"
        }
        [ "$(newest_stamp || echo 0)" -ge "$1" ] 2>/dev/null
}

"$tarn" pool create tank "$work/disk1" "$work/disk2" "$work/disk3" --file-size 256M
"$tarn" volume create tank/fs 192M
for ((round = 1; round <= rounds; round++)); do
        start_server tank
        start_guest "${guest_arguments[@]}" --timeout 300 --io-errors -- sh /lab/stamps "$last" load
        wait_until 240 stamps_reach $((last + 5 + RANDOM % 30)) || fail "the guest is too slow"
        kill_server
        end_guest
        last=$(newest_stamp)
        printf 'round %d: killed after file %d\n' $round "$last"
done
start_server tank
lab "${guest_arguments[@]}" -- sh /lab/stamps "$last" verify
stop_server
"$tarn" pool check tank --data
