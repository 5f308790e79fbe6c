#!/bin/bash
# One Linux with disks over vhost-user-blk in every mode of its rings, all under a load at once that checks what it
# reads: one queue and four, split and packed, with and without event index and indirect descriptors.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

modes=(num-queues=1 num-queues=4 num-queues=4,packed=on num-queues=1,packed=on,event_idx=off
        num-queues=1,event_idx=off num-queues=2,indirect_desc=off num-queues=1,packed=on,indirect_desc=off)
queues=(1 4 4 1 1 2 1)
disks=()
"$tarn" pool create tank "$work/disk" --file-size 1G
for number in "${!modes[@]}"; do
        "$tarn" volume create "tank/v$number" 64M
        disks+=(--disk "vhost-user:$work/vhost/v$number.sock,${modes[number]}")
done
start_vhost_server tank

# shellcheck disable=SC2016  # for the guest's shell
script='
number=0
for queues in '"${queues[*]}"'; do
        disk=/dev/$(echo vd a b c d e f g | cut -d" " -f1,$((number + 2)) | tr -d " ")
        have=$(ls /sys/block/${disk#/dev/}/mq | wc -l)
        [ "$have" = "$queues" ] || { echo "$disk has $have queues, not $queues"; exit 1; }
        diskload $disk 12 >/tmp/$number 2>&1 &
        number=$((number + 1))
done
failed=0
for job in $(jobs -p); do wait $job || failed=1; done
grep -h "verified\|diskload" /tmp/[0-9]
exit $failed'
lab --cpus 4 --memory 768 --timeout 300 --program "$DISKLOAD" "${disks[@]}" -- sh -c "$script" | tee "$work/output"
[ "$(grep -c '^verified [1-9]' "$work/output")" = ${#modes[@]} ] || fail "not every disk was verified"
stop_server
"$tarn" pool check tank --data
