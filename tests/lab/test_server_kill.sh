#!/bin/bash
# ext4 on a volume survives kill -9 of the server under load: the machine loses power with it, and
# after a restart e2fsck finds nothing and every file is there whose fsync had answered.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-3}
uri="nbd+unix:///tank/fs?socket=$work/nbd"
last=0
"$tarn" pool create tank "$work/disk1" "$work/disk2" "$work/disk3" --file-size 256M
"$tarn" volume create tank/fs 192M
for ((round = 1; round <= rounds; round++)); do
        start_server tank
        start_guest "${stamps_arguments[@]}" --disk "$uri" --timeout 300 --io-errors -- \
                sh /lab/stamps "$last" load
        wait_for_stamp $((last + 5 + RANDOM % 30))
        kill_server
        end_guest
        last=$(newest_stamp)
        printf 'round %d: killed after file %d\n' $round "$last"
done
start_server tank
lab "${stamps_arguments[@]}" --disk "$uri" -- sh /lab/stamps "$last" verify
stop_server
"$tarn" pool check tank --data
