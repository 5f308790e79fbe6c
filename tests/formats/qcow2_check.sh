#!/bin/bash
# What tarn finds wrong with damaged qcow2 images is what qemu-img finds wrong: as many errors, as many leaks.
set -eu
. "$(dirname "$0")/common.sh"

disk disk.raw odd
q() {
    ok qemu-img "$@"
}
io() {
    ok qemu-io -f qcow2 -c "$1" "$2"
}

# history FILE: two snapshots, and writes before and after
history() {
    io 'write 0 1M' "$1"
    io 'write 5M 300k' "$1"
    q snapshot -c one "$1"
    io 'write 5M 100k' "$1"
    q snapshot -c two "$1"
    io 'write -z 10M 128k' "$1"
    io 'write 0 64k' "$1"
}

q create -q -f qcow2 plain.qcow2 64M
io 'write 3M 700k' plain.qcow2
for options in cluster_size=4096 compat=0.10,cluster_size=4096 extended_l2=on refcount_bits=1 refcount_bits=64,cluster_size=512; do
    q create -q -f qcow2 -o "$options" "base.$options.qcow2" 16M
    case $options in
    refcount_bits=1) io 'write 0 300k' "base.$options.qcow2" ;;
    *) history "base.$options.qcow2" ;;
    esac
done
q convert -c -O qcow2 disk.raw base.packed.qcow2
ok tarn image convert disk.raw base.ours.qcow2 --format qcow2 --compression zlib
q create -q -f qcow2 -o cluster_size=4096 base.bitmaps.qcow2 16M
q bitmap --add -g 64k base.bitmaps.qcow2 one
q bitmap --add -g 512 base.bitmaps.qcow2 two
history base.bitmaps.qcow2
mv plain.qcow2 base.plain.qcow2

# with nothing wrong
for base in base.*.qcow2; do
    check_image "$base" qcow2
done

ok $python -I -S "$here/qcow2_damage.py" "$TARN" "${SEEDS:-160}" base.*.qcow2
