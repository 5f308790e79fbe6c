#!/bin/bash
# The server is taken over again and again under fio in the guest: fio's verification finds every block as it was written,
# no request fails, QEMU has not had to connect again, and the guest's kernel says nothing.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

rounds=${ROUNDS:-3}
start_limited_fio tank $((20 * rounds))

# So many takeovers, each with so many requests of each volume under way.
take_over_often() { # ROUNDS DEPTH
        local round
        for ((round = 1; round <= $1; round++)); do
                wait_until 120 every_volume_works "$2" || fail "the guest does no work after ${#rested[@]} takeovers"
                take_over tank
        done
}
marked() {
        grep -q snapshots-created "$work/events"
}

wait_until 120 every_volume_works 4 || fail "the guest does no work"
# Who follows what happens is handed on, too, and would see front ends come and go.
"$tarn" pool events tank --json >"$work/events" 2>"$work/events-errors" &
follower=$!
take_over_often "$rounds" 4
wait_until 120 every_volume_works 4 || fail "the guest does no work after ${#rested[@]} takeovers"
# And at full speed.
limit_fio_volumes tank 0
take_over_often "$rounds" 0
wait_until 120 every_volume_works 0 || fail "the guest does no work after ${#rested[@]} takeovers"
"$tarn" snapshot create tank/told@mark
wait_until 60 marked || fail "events do not come from the last server"
! grep client- "$work/events" || fail "a front end was hung up on"
end_of_fio tank
wait $follower || true # it ends with its server
echo "front ends rested for ms: ${rested[*]}"
