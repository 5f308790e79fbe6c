#!/bin/bash
# The server is killed twice under fio in the guest, and started again: fio's verification finds every block as it was
# written, no request fails, and the guest's kernel says nothing.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-2}
start_limited_fio tank $((20 * rounds))

for ((round = 1; round <= rounds; round++)); do
        wait_until 120 every_volume_works 4 || fail "the guest does no work after $((round - 1)) kills"
        kill_server
        start_vhost_server tank
        printf 'killed, round %d\n' $round
done
wait_until 120 every_volume_works 4 || fail "the guest does no work after $rounds kills"
limit_fio_volumes tank 0
end_of_fio tank
