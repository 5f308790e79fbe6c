#!/bin/bash
# After a reboot disks may have other names: a pool is found by the uuids of its members, and served again.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

for disk in 1 2 3 4; do
        truncate -s 128M "$work/disk$disk"
done
common=(--program "$tarn" --file "$lab/moved-disks=lab/moved-disks")
lab "${common[@]}" --disk "$work/disk1" --disk "$work/disk2" -- sh /lab/moved-disks make >"$work/tank.json"
grep -q '/dev/vda' "$work/tank.json" || fail "the state says nothing of the disks: $(cat "$work/tank.json")"
# In the old places stand a disk that is none of the pool's, and the other member.
lab "${common[@]}" --file "$work/tank.json=var/lib/tarn/tank.json" --disk "$work/disk3" --disk "$work/disk1" \
        --disk "$work/disk4" --disk "$work/disk2" -- sh /lab/moved-disks find
