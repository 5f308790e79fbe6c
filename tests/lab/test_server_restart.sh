#!/bin/bash
# A server that is stopped in order loses nothing, not even what no flush has asked for: a guest under
# load that connects again goes on as if nothing had been, and its ext4 is whole.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

uri="nbd+unix:///tank/fs?socket=$work/nbd"
# QEMU holds the requests of a lost connection back for that many seconds and tries again.
patient="driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=$work/nbd"
patient+=",file.export=tank/fs,file.reconnect-delay=120"

"$tarn" pool create tank "$work/disk1" "$work/disk2" --file-size 256M
"$tarn" volume create tank/fs 192M
start_server tank
start_guest "${stamps_arguments[@]}" --disk "$patient" --timeout 400 -- sh /lab/stamps 0 load
last=0
for restart in 1 2; do
        wait_for_stamp $((last + 10))
        stop_server
        start_server tank
        last=$(newest_stamp)
        printf 'restart %d: after file %d\n' $restart "$last"
done
wait_for_stamp $((last + 10))
end_guest
last=$(newest_stamp)
lab "${stamps_arguments[@]}" --disk "$uri" -- sh /lab/stamps "$last" verify
stop_server
"$tarn" pool check tank --data
