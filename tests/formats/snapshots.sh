#!/bin/bash
# Snapshots inside of an image: each becomes one of the volume, and what they share takes space once.
set -eu
. "$(dirname "$0")/common.sh"

ok qemu-img create -f qcow2 s.qcow2 20M
ok tarn image info --json s.qcow2
[ "$(json "['supported']")" = True ] || skip "qcow2 cannot be read"
fill() { # PATTERN OFFSET LENGTH
    ok qemu-io -f qcow2 -c "write -q -P $1 $2 $3" s.qcow2
}
keep() { # NAME
    ok qemu-img snapshot -c "$1" s.qcow2
}
fill 17 0 8M
keep monday
fill 18 1M 64K
fill 19 12M 1M
ok qemu-io -f qcow2 -c "write -q -z 2M 1M" s.qcow2
keep 'tuesday night'
ok qemu-img resize -q s.qcow2 24M
fill 20 23M 1M
keep 'tuesday/night'
fill 17 1M 64K
fill 17 2M 1M
keep monday-2
fill 21 4K 4K

ok tarn pool create tank d0 --file-size 256M
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    ok tarn image import s.qcow2 "tank/$mode" --snapshots --size 30M
    grep -q 'with 4 snapshots' <<<"$out" || die "it says: $out"
    grep -q "snapshot 'tuesday night' is called 'tank/$mode@tuesday-night':" err || die "it notes: $(cat err)"
    grep -q "snapshot 'tuesday/night' is called 'tank/$mode@tuesday-night-2':" err || die "it notes: $(cat err)"
    same "$(grep -c '^note: ' err)" 2 "notes"
    i=1
    for snapshot in monday tuesday-night tuesday-night-2 monday-2; do
        rm -f want.raw have.raw
        ok qemu-img convert -f qcow2 -l $i -O raw s.qcow2 want.raw
        ok tarn image export "tank/$mode@$snapshot" have.raw
        # qemu-img has them all as large as the image is now
        same_content want.raw raw have.raw raw
        [ $i -gt 2 ] || same "$(stat -c %s have.raw)" $((20 << 20)) "size of $snapshot"
        i=$((i + 1))
    done
    ok tarn image export "tank/$mode" have.raw --force
    ok qemu-img compare -f qcow2 -F raw s.qcow2 have.raw
    same "$(stat -c %s have.raw)" $((30 << 20))
    ok tarn volume show --json "tank/$mode"
    same "$(json "['snapshots'].__len__()")" 4
    ok tarn pool status --json tank
    # 8 MiB, then 1 MiB and 64 KiB, 1 MiB, 1 MiB and 64 KiB, 4 KiB; and what the pool needs itself
    used=$(json "['used']")
    [ "$mode" = served ] || [ "$used" -lt $((20 << 20)) ] || die "what snapshots share takes space again: $used"
    [ $mode = direct ] || serve_end
done
ok tarn pool check tank --data

# one of them instead of the current state
ok tarn image import s.qcow2 tank/one --snapshot 'tuesday night'
ok tarn image export tank/one have.raw --force
ok qemu-img convert -f qcow2 -l 2 -O raw s.qcow2 want.raw
same_content want.raw raw have.raw raw
fails 1 "either all snapshots" tarn image import s.qcow2 tank/x --snapshots --snapshot monday
fails 1 . tarn image import s.qcow2 tank/x --snapshot never
fails 1 "exists" tarn image import s.qcow2 tank/one --snapshots

# a pool that is full in the midst of it takes all back
ok qemu-img create -f qcow2 s.qcow2 400M
for i in 1 2 3; do
    fill $i "$((i * 100))M" 90M
    keep "s$i"
done
fails 1 "full" tarn image import s.qcow2 tank/large --snapshots
ok tarn volume list --json tank
! grep -q large <<<"$out" || die "an import that failed has left something: $out"
ok tarn snapshot list tank
! grep -q large <<<"$out" || die "an import that failed has left a snapshot: $out"
echo "snapshots: passed"
