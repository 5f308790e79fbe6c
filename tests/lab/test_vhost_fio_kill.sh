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
limit() { # IOPS
        local number
        for number in 1 2 3 4; do
                "$tarn" volume set "tank/fio$number" "iops=$1"
        done
}
limit 10
start_vhost_server tank
start_guest "${fio_arguments[@]}" --disk "$told_disk" --timeout $((320 + 20 * rounds)) -- sh /lab/verify /dev/vde

# In the last second each volume has answered requests, and had more under way.
every_volume_works() {
        local report
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        report=$(timeout -k 5 20 "$tarn" stat tank --interval 1 --count 2 --json | tail -1)
        /usr/bin/python3 -I -S -c '
import json, sys
volumes = [v for v in json.loads(sys.argv[1] or "{}").get("volumes", []) if "fio" in v["name"]]
sys.exit(len(volumes) < 4 or any(v["reads"] + v["writes"] == 0 or v["depth"] < 4 for v in volumes))' "$report"
}
for ((round = 1; round <= rounds; round++)); do
        wait_until 120 every_volume_works || fail "the guest does no work after $((round - 1)) kills"
        kill_server
        start_vhost_server tank
        printf 'killed, round %d\n' $round
done
wait_until 120 every_volume_works || fail "the guest does no work after $rounds kills"
limit 0
tell tank

status=0
wait "$guest" || status=$?
guest=
[ $status = 0 ] && grep -q '^verified in' "$work/output" || {
        cat "$work/output" "$work/guest-errors" >&2
        fail "the guest ended with status $status"
}
tail -1 "$work/output"
stop_server
"$tarn" pool check tank --data
