#!/bin/bash
# fio in the guest verifies what it writes over vhost-user-blk: one queue and four, split rings and packed ones, by libaio
# and by io_uring, all four disks at once.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$tarn" pool create tank "$work/disk" --file-size 1G
make_fio_volumes tank
start_vhost_server tank
lab "${fio_arguments[@]}" --timeout 300 -- sh /lab/verify || fail "fio has found errors"
stop_server
"$tarn" pool check tank --data
