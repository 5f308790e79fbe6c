#!/bin/bash
# VDI images: dynamic and static ones, both ways.
set -eu
. "$(dirname "$0")/common.sh"

for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    read_theirs disk.raw vdi
    write_ours disk.raw vdi
    ok qemu-img info --output=json ours.vdi
    same "$(json "['virtual-size']")" $((($(stat -c %s disk.raw) + 511) / 512 * 512)) "size of $kind for qemu-img"
    [ "$kind" = huge ] && continue # whose static images are as long as the disk
    read_theirs disk.raw vdi -o static=on
    write_ours disk.raw vdi --variant static
done

# what is not written takes no space
disk disk.raw empty
write_ours disk.raw vdi
[ "$(stat -c %s ours.vdi)" -le $((1 << 20)) ] || die "an empty image is $(stat -c %s ours.vdi) bytes long"

# qemu-img knows one block size; tarn reads its own
disk disk.raw sparse
for size in 512K 2M; do
    rm -f ours.vdi back.raw
    ok tarn image convert disk.raw ours.vdi --format vdi --cluster-size "$size"
    ok tarn image convert ours.vdi back.raw
    cmp disk.raw back.raw
done

# what is said of it
ok tarn image info --json ours.vdi
same "$(json "['format']") $(json "['variant']") $(json "['cluster_size']")" "vdi dynamic $((2 << 20))"

# the map cut off; a block beyond the end; a block twice
write_ours disk.raw vdi
cp ours.vdi bad.vdi
truncate -s 4100 bad.vdi
fails 1 "'bad.vdi' ends at 4100 bytes, within its block map" tarn image convert bad.vdi x.raw
cp ours.vdi bad.vdi
printf '\x88\x77\x66\x00' | dd of=bad.vdi bs=1 seek=4096 conv=notrunc status=none
fails 1 "'bad.vdi' is damaged: its block map at offset 4096 places block 0" tarn image convert bad.vdi x.raw
[ ! -e x.raw ] || die "a failed conversion has left a file"
cp ours.vdi bad.vdi
printf '\0\0\0\0\0\0\0\0' | dd of=bad.vdi bs=1 seek=4096 conv=notrunc status=none
got=0
tarn image check bad.vdi >out 2>err || got=$?
[ "$got" != 0 ] || die "a check has not seen two blocks at one place"
grep -q "where another one lies" out err || die "check says: $(cat out err)"

# refusals
fails 1 "no variant 'undo'" tarn image convert disk.raw x.vdi --format vdi --variant undo
fails 1 "no compression" tarn image convert disk.raw x.vdi --format vdi --compression zlib
fails 1 "512 KiB, 1 MiB or 2 MiB" tarn image convert disk.raw x.vdi --format vdi --cluster-size 4K
[ ! -e x.vdi ] || die "a refused conversion has left a file"

# a differencing image needs its parent, which is known by a UUID
printf '\4' | dd of=ours.vdi bs=1 seek=76 conv=notrunc status=none
printf '\1\2\3\4\5\6\7\10\11\12\13\14\15\16\17\20' | dd of=ours.vdi bs=1 seek=424 conv=notrunc status=none
fails 1 "04030201-0605-0807-090a-0b0c0d0e0f10" tarn image convert ours.vdi x.raw
ok tarn image info --json ours.vdi
same "$(json "['variant']")" differencing

echo "vdi: passed"
