#!/bin/bash
# VHD images: dynamic and fixed ones, both ways, with the size exact or the geometry's.
set -eu
. "$(dirname "$0")/common.sh"

for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    if [ "$kind" = huge ]; then # larger than VHD has room for
        fails 1 "2040 GiB" tarn image convert disk.raw x.vhd --format vhd
        truncate -s 2040G disk.raw
        write_ours disk.raw vhd
        continue
    fi
    for options in "" "force_size=on" "subformat=fixed" "subformat=fixed,force_size=on"; do
        read_theirs disk.raw vhd ${options:+-o "$options"}
        ok qemu-img info --output=json -f vpc theirs.vhd
        size=$(json "['virtual-size']")
        ok tarn image info --json theirs.vhd
        same "$(json "['virtual_size']")" "$size" "size of $kind with '$options'"
    done
    for variant in dynamic fixed; do
        write_ours disk.raw vhd --variant "$variant"
        ok qemu-img info --output=json -f vpc ours.vhd
        same "$(json "['virtual-size']")" $((($(stat -c %s disk.raw) + 511) / 512 * 512)) "size of $kind for qemu-img"
    done
done

# theirs: as large as there are, and around where the geometry has no larger number, which counts without force_size
gib=$((1 << 30))
for options in force_size=on force_size=off; do
    read_large vhd 2040G "0 $((1024 * gib)) $((2040 * gib - 3 * 2048 * 1024)) $((2040 * gib - 36 * 1024))" -o $options
done
chs=$((65535 * 16 * 255 * 512))
for size in $((chs - 2048 * 1024)) $chs $((chs + 512)); do
    read_large vhd "$size" "0 $((size - 36 * 1024))" -o force_size=off
done
read_large vhd $((2039 * gib)) "0 $((2039 * gib - 36 * 1024))" -o subformat=fixed,force_size=on

# a fixed one is the disk and 512 bytes, for Azure, which wants whole MiB and takes no other bytes
disk disk.raw sparse
write_ours disk.raw vhd --variant fixed
same "$(stat -c %s ours.vhd)" $(($(stat -c %s disk.raw) + 512))
cmp -n "$(stat -c %s disk.raw)" disk.raw ours.vhd
[ "$(stat -c %b ours.vhd)" -le $(($(stat -c %b disk.raw) + 64)) ] || die "the fixed image is not sparse"

# what is not written takes no space
disk disk.raw empty
write_ours disk.raw vhd
[ "$(stat -c %s ours.vhd)" -le 8192 ] || die "an empty image is $(stat -c %s ours.vhd) bytes long"

# other sizes of blocks
disk disk.raw sparse
for size in 512K 1M; do
    write_ours disk.raw vhd --cluster-size "$size"
done

# what is said of it
write_ours disk.raw vhd
ok tarn image info --json ours.vhd
same "$(json "['format']") $(json "['variant']") $(json "['cluster_size']")" "vhd dynamic $((2 << 20))"

# a footer that is not there any more: the copy in front is
cp ours.vhd bad.vhd
truncate -s -512 bad.vhd
ok tarn image convert bad.vhd back.raw --force
cmp disk.raw back.raw
got=0
tarn image check bad.vhd >out 2>err || got=$?
[ "$got" != 0 ] || die "a check has not missed the footer"
grep -q "the footer at the end" out err || die "check says: $(cat out err)"

# neither of them; the header damaged; a block beyond the end
printf 'X' | dd of=bad.vhd bs=1 seek=100 conv=notrunc status=none
fails 1 "no footer with the right checksum" tarn image convert bad.vhd x.raw
cp ours.vhd bad.vhd
printf 'X' | dd of=bad.vhd bs=1 seek=900 conv=notrunc status=none
fails 1 "the checksum of its header at offset 512 is wrong" tarn image convert bad.vhd x.raw
cp ours.vhd bad.vhd
printf '\x7f' | dd of=bad.vhd bs=1 seek=1536 conv=notrunc status=none
fails 1 "'bad.vhd' is damaged: its table at offset 1536 places block 0" tarn image convert bad.vhd x.raw
[ ! -e x.raw ] || die "a failed conversion has left a file"

# refusals
fails 1 "no variant 'undo'" tarn image convert disk.raw x.vhd --format vhd --variant undo
fails 1 "no compression" tarn image convert disk.raw x.vhd --format vhd --compression zlib
fails 1 "512 KiB, 1 MiB or 2 MiB" tarn image convert disk.raw x.vhd --format vhd --cluster-size 4K
[ ! -e x.vhd ] || die "a refused conversion has left a file"

echo "vhd: passed"
