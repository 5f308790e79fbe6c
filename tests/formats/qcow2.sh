#!/bin/bash
# qcow2 images that qemu-img made, as tarn reads them.
set -eu
. "$(dirname "$0")/common.sh"

# versions, sizes of clusters, subclusters, both compressions
for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    read_theirs disk.raw qcow2
    read_theirs disk.raw qcow2 -c
done
disk disk.raw sparse
for options in compat=0.10 extended_l2=on compression_type=zstd cluster_size=2M; do
    read_theirs disk.raw qcow2 -o "$options"
    read_theirs disk.raw qcow2 -c -o "$options"
done
disk disk.raw odd 7
for size in 512 1k 2k 4k 8k 16k 32k 128k 256k 512k 1M; do
    read_theirs disk.raw qcow2 -o "cluster_size=$size"
    read_theirs disk.raw qcow2 -c -o "cluster_size=$size,compression_type=zstd"
done

# written to by a guest: out of order, with zeroes and discards
for options in extended_l2=off extended_l2=on,cluster_size=16k compat=0.10; do
    rm -f guest.qcow2
    ok qemu-img create -q -f qcow2 -o "$options" guest.qcow2 40M
    ok qemu-io -c "write -P 1 20M 1M" -c "write -P 2 1M 100k" -c "write -z 3M 300k" -c "write -P 3 5000000 70000" \
        -c "write -z -u 20M 100k" -c "discard 1M 64k" -c "write -P 4 39999k 1k" guest.qcow2
    ok qemu-img convert -f qcow2 -O raw guest.qcow2 disk.raw
    read_back disk.raw guest.qcow2 qcow2
done

# preallocated; to qemu-img a hole of the file is data as well as zero
disk disk.raw empty
for how in off falloc full; do
    read_theirs disk.raw qcow2 -o preallocation=$how
done
for how in off metadata falloc full; do
    rm -f theirs.qcow2
    ok qemu-img create -q -f qcow2 -o preallocation=$how theirs.qcow2 16M
    ok qemu-io -c "write -P 1 5M 1M" theirs.qcow2
    ok qemu-img convert -f qcow2 -O raw theirs.qcow2 written.raw
    ok tarn image convert theirs.qcow2 back.raw --force
    same_content written.raw raw back.raw raw
    [ "$(stat -c %b back.raw)" -le 4096 ] || die "zeroes of preallocation=$how were written"
done

# snapshots, each with the size that it had
rm -f snaps.qcow2
ok qemu-img create -q -f qcow2 snaps.qcow2 20M
ok qemu-io -c "write -P 1 1M 100k" snaps.qcow2
ok qemu-img convert -f qcow2 -O raw snaps.qcow2 one.raw
ok qemu-img snapshot -c one snaps.qcow2
ok qemu-img resize -q snaps.qcow2 30M
ok qemu-io -c "write -P 2 1M 50k" -c "write -P 7 25M 1M" snaps.qcow2
ok qemu-img convert -f qcow2 -O raw snaps.qcow2 two.raw
ok qemu-img snapshot -c two snaps.qcow2
ok qemu-io -c "write -z 0 30M" snaps.qcow2
ok qemu-img convert -f qcow2 -O raw snaps.qcow2 now.raw
ok tarn image info --json snaps.qcow2
same "$(json "['snapshots'][0]['name']") $(json "['snapshots'][0]['virtual_size']")" "one $((20 << 20))"
same "$(json "['snapshots'][1]['name']") $(json "['snapshots'][1]['virtual_size']")" "two $((30 << 20))"
for name in one two; do
    ok tarn image convert snaps.qcow2 back.raw --force --snapshot $name
    cmp back.raw $name.raw
done
ok tarn image convert snaps.qcow2 back.raw --force
cmp back.raw now.raw
fails 1 "no snapshot 'three'" tarn image convert snaps.qcow2 back.raw --force --snapshot three

# bitmaps
ok qemu-img bitmap --add -g 1M snaps.qcow2 daily
ok tarn image info --json snaps.qcow2
same "$(json "['bitmaps'][0]['name']")" daily

# what else it says of itself is what qemu-img says
for options in compat=0.10 extended_l2=on compression_type=zstd,cluster_size=4k; do
    rm -f theirs.qcow2
    ok qemu-img create -q -f qcow2 -o "$options" theirs.qcow2 20M
    ok qemu-img info --output=json theirs.qcow2
    theirs="$(json "['cluster-size']") $(json "['virtual-size']") $(json "['dirty-flag']")"
    ok tarn image info --json theirs.qcow2
    same "$(json "['cluster_size']") $(json "['virtual_size']") $(json "['dirty']")" "$theirs"
done

# what is not read
ok qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
    luks.qcow2 1M
fails 1 "is encrypted .LUKS" tarn image info luks.qcow2
cp theirs.qcow2 new.qcow2
printf '\1' | dd of=new.qcow2 bs=1 seek=72 conv=notrunc status=none
fails 1 "unknown feature, number 56" tarn image info new.qcow2
ok qemu-img create -q -f qcow2 -b theirs.qcow2 -F qcow2 over.qcow2
ok tarn image info --json over.qcow2
same "$(json "['backing_file']") $(json "['backing_format']")" "theirs.qcow2 qcow2"

echo "qcow2: passed"
