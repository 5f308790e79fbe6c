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
same_info snaps.qcow2 qcow2

# the data in a file of its own, which is the disk itself where data_file_raw says so
for options in data_file=data data_file=data,data_file_raw=on data_file=data,cluster_size=16k,extended_l2=on; do
    rm -rf apart theirs.qcow2
    disk disk.raw sparse 3
    read_theirs disk.raw qcow2 -o "$options"
    ok qemu-io -c "write -P 1 20M 1M" -c "write -P 2 1M 100k" -c "write -z 3M 300k" -c "discard 20M 64k" \
        -c "write -P 4 39999k 1k" theirs.qcow2
    ok qemu-img convert -f qcow2 -O raw theirs.qcow2 written.raw
    read_back written.raw theirs.qcow2 qcow2
    # beside the image, wherever that is: to qemu-img it is where it runs
    mkdir apart
    mv theirs.qcow2 data apart
    ok tarn image convert apart/theirs.qcow2 back.raw --force
    same_content written.raw raw back.raw raw
done
rm apart/data
fails 1 "cannot open 'data'.*No such file" tarn image convert apart/theirs.qcow2 new.raw
[ ! -e new.raw ] || die "a failure has left a file"
[ ! -e apart/data ] || die "a data file is made by who only reads"

# whoever wrote it was killed: refcounts are behind, and what was not flushed may be missing
for options in lazy_refcounts=on lazy_refcounts=on,extended_l2=on,cluster_size=16k; do
    rm -f killed.qcow2
    ok qemu-img create -q -f qcow2 -o "$options" killed.qcow2 40M
    got=0
    qemu-io -c "write -P 1 20M 1M" -c "write -P 2 1M 100k" -c flush -c "write -z 20M 128k" -c flush -c "write -P 3 0 64k" \
        -c "sigraise 9" killed.qcow2 >out 2>&1 || got=$?
    same "$got" 137 "status of the writer"
    ok tarn image info --json killed.qcow2
    same "$(json "['dirty']")" True
    same_info killed.qcow2 qcow2
    ok qemu-img convert -f qcow2 -O raw killed.qcow2 written.raw
    ok tarn image convert killed.qcow2 back.raw --force
    same_content written.raw raw back.raw raw
    same_map killed.qcow2 qcow2
    # a check finds as much, and repairs nothing
    cp killed.qcow2 kept.qcow2
    got=0
    out=$(qemu-img check --output=json -f qcow2 killed.qcow2 2>err) || got=$?
    same "$got" 2 "qemu-img check of an image with refcounts that are behind"
    theirs="$(json ".get('corruptions', 0)") $(json ".get('leaks', 0)")"
    got=0
    out=$(tarn image check --json killed.qcow2 2>err) || got=$?
    same "$got" 1 "check of an image with refcounts that are behind"
    same "$(json "['errors']") $(json "['leaks']")" "$theirs" "errors and leaks"
    cmp killed.qcow2 kept.qcow2
done

# what is not read
encrypted() { # FILE
    qemu-img create -q -f qcow2 --object secret,id=s,data=abc -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 "$1" 1M
}
# It measures how fast the processor is, which at times fails on a busy one ("Unable to get accurate CPU usage").
encrypted luks.qcow2 2>/dev/null || encrypted luks.qcow2 2>/dev/null || encrypted luks.qcow2 2>/dev/null || ok encrypted luks.qcow2
fails 1 "is encrypted .LUKS" tarn image info luks.qcow2
cp snaps.qcow2 new.qcow2
printf '\1' | dd of=new.qcow2 bs=1 seek=72 conv=notrunc status=none
fails 1 "unknown feature, number 56" tarn image info new.qcow2
ok qemu-img create -q -f qcow2 -b snaps.qcow2 -F qcow2 over.qcow2
ok tarn image info --json over.qcow2
same "$(json "['backing_file']") $(json "['backing_format']")" "snaps.qcow2 qcow2"
same_info over.qcow2 qcow2

echo "qcow2: passed"
