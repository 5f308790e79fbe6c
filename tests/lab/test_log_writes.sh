#!/bin/bash
# What the engine sends to a real kernel's block layer keeps its promise: the kernel logs it below the pool's member
# (dm-log-writes), and wherever the log is cut, at a flush or with a part of what followed it, the pool opens, its check
# finds nothing before and after, and volume and snapshots hold what was flushed. STATES=2000 for more states.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

states=${STATES:-24} rounds=40
need_tools dmsetup nbd-client sfdisk jq
truncate -s 128M "$work/disk" "$work/image"
truncate -s 2G "$work/log"
lab "${pool_arguments[@]}" --program dmsetup --program "$ROUNDSLOAD" --module dm-log-writes \
        --file "$lab/log-writes=lab/log-writes" --disk "$work/disk" --disk "$work/log" --timeout 600 -- \
        /lab/log-writes fill $rounds
replay=("$work/log" "$work/image")

mapfile -t points < <("$REPLAYLOG" points "$work/log" | grep -v -e ' -1$')
printf '%d points where the disk has flushed\n' ${#points[@]}
[ ${#points[@]} -gt $((2 * rounds)) ] || fail "the log has too few flushes"
[ "${points[-1]#* }" = $rounds ] || fail "the log ends at mark ${points[-1]#* }"

# A member is a partition on the disk; in a file it has to stand alone.
"$REPLAYLOG" apply "${replay[@]}" 0 "${points[0]% *}" 0 0
window=$(sfdisk --json "$work/image" | jq -r '.partitiontable.partitions[0] | "\(.start) \(.size)"')
read -r first sectors <<<"$window"
rm "$work/image"
truncate -s $((sectors * 512)) "$work/image"

# The pool at $work/cut as it may be after this round, or in the one that followed. Each step by "&&": who asks for the
# result suspends "set -e".
verify_state() { # ROUND
        local snapshot=$(($1 / 8 * 8))
        "$tarn" pool import "$work/cut" &&
                "$tarn" pool check tank --data &&
                verify_volume tank/web "$1" $(($1 < rounds ? $1 + 1 : rounds)) &&
                { [ $snapshot = 0 ] || verify_volume "tank/web@r$snapshot" $snapshot $snapshot; } &&
                "$tarn" pool check tank --data &&
                "$tarn" pool forget tank
}
verify_volume() { # NAME DURABLE BEGUN
        "$tarn" image export "$1" "$work/web" --force && "$ROUNDSLOAD" verify "$work/web" "$2" "$3"
}

done_to=0 n=0
for ((i = 0; i < states; i++)); do
        read -r entry round <<<"${points[i * ${#points[@]} / states]}"
        "$REPLAYLOG" apply "${replay[@]}" $done_to "$entry" "$first" "$sectors"
        done_to=$entry
        cp --sparse=always "$work/image" "$work/cut"
        [ $((i % 3)) = 0 ] ||
                "$REPLAYLOG" tear "$work/log" "$work/cut" "$entry" $i "$first" "$sectors" >"$work/said"
        verify_state "$round" >>"$work/said" 2>&1 || {
                cat "$work/said" >&2
                fail "state $i, cut after entry $entry of the log, in the round after $round"
        }
        n=$((n + 1))
        rm -f "$work/said"
done
printf '%d states verified\n' $n
