#!/bin/bash
# The power goes for a guest, its pool's server or both while file systems on volumes over vhost-user-blk and over NBD
# change: they recover, their own checkers find nothing, and everything is there that was reported as durable.
#
# usage: test_power_cut.sh ext4|xfs|btrfs
. "$(dirname "$(readlink -f "$0")")/lib.sh"

fs=$1
rounds=${ROUNDS:-2}
case $fs in
ext4) tools=(mke2fs e2fsck) ;;
xfs) tools=(mkfs.xfs xfs_repair) ;;
btrfs) tools=(mkfs.btrfs btrfs) ;;
esac
need_tools "${tools[@]}"
arguments=(--program "$FSLOAD" --module "$fs" --file "$lab/power-cut=lab/power-cut"
        --disk "vhost-user:$work/vhost/vhost.sock" --disk "nbd+unix:///tank/nbd?socket=$work/nbd" --timeout 300)
for tool in "${tools[@]}"; do
        arguments+=(--program "$tool")
done

# Server and guest at once, or one of them first, and the other goes on for a moment.
cut_power() { # KIND
        case $1 in
        guest)
                end_guest
                ;;
        server)
                kill_server
                sleep "0.$((RANDOM % 10))"
                end_guest
                ;;
        both)
                kill "$guest"
                kill_server
                end_guest
                ;;
        esac
}

kinds=(guest server both)
first=$((RANDOM % 3)) vda=0 vdb=0
"$tarn" pool create tank "$work/disk1" "$work/disk2" --file-size 1G
"$tarn" volume create tank/vhost 320M # the least that mkfs.xfs takes is 300M
"$tarn" volume create tank/nbd 320M
start_vhost_server tank
for ((round = 1; round <= rounds; round++)); do
        kind=${kinds[(first + round) % 3]}
        start_guest "${arguments[@]}" -- sh /lab/power-cut "$fs" "$vda" "$vdb" load
        wait_for_stamp $((vda + 5 + RANDOM % 30)) vda
        wait_for_stamp $((vdb + 5 + RANDOM % 30)) vdb
        cut_power $kind
        vda=$(newest_stamp vda) vdb=$(newest_stamp vdb)
        printf 'round %d: power cut (%s) after steps %d and %d of %s\n' $round $kind "$vda" "$vdb" "$fs"
        [ -n "$server" ] || start_vhost_server tank
done
lab "${arguments[@]}" -- sh /lab/power-cut "$fs" "$vda" "$vdb" verify
stop_server
"$tarn" pool check tank --data
