#!/bin/bash
# The server is killed twice under fio in the guest, and started again: fio's verification finds every block as it was
# written, no request fails, and the guest's kernel says nothing.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-2}
"$tarn" pool create tank "$work/disk" --file-size 1G
make_fio_volumes tank
make_told tank
# A server that is faster than its guest has nothing to lose when it is killed. Requests that wait for a limit are under
# way in it: below what the slowest machine does there are always some, and flushes, which do not wait, overtake them.
limit_fio_volumes tank 10
start_vhost_server tank
start_guest "${fio_arguments[@]}" --disk "$told_disk" --timeout $((320 + 20 * rounds)) -- sh /lab/verify /dev/vde

for ((round = 1; round <= rounds; round++)); do
        wait_until 120 every_volume_works 4 || fail "the guest does no work after $((round - 1)) kills"
        kill_server
        start_vhost_server tank
        printf 'killed, round %d\n' $round
done
wait_until 120 every_volume_works 4 || fail "the guest does no work after $rounds kills"
limit_fio_volumes tank 0
tell tank
end_of_fio
stop_server
"$tarn" pool check tank --data
