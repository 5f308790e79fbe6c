#!/bin/bash
# VHDX images: dynamic and fixed, of all block sizes, read and written.
set -eu
. "$(dirname "$0")/common.sh"

# same_map() has nothing to compare with: to QEMU 7.2 all of a VHDX image is data. What tarn says is compared with the
# content instead, which read_back() has just found right.
same_map() {
    ok tarn image map --json --format vhdx "$1"
    printf '%s' "$out" >map.tarn
    ok $python -I -S "$here/vhdx_map.py" map.tarn "$1" back.raw
}

# That is also why it cannot compare a huge one: it would read all of it. It reads the places where there is something.
same_places() {
    local gib skip
    for gib in 0 1 2 64 1024 2048; do
        skip=$((gib == 0 ? 0 : gib * 1024 - 1))
        rm -f place.qemu
        ok qemu-img dd -f vhdx -O raw bs=1M skip="$skip" count="$((skip + 2))" if="$2" of=place.qemu
        cmp <(dd if="$1" bs=1M skip="$skip" count=2 2>/dev/null) place.qemu || die "$2 is not $1 at $gib GiB"
    done
}

for kind in "${disk_kinds[@]}"; do
    [ "$kind" != huge ] || continue
    disk disk.raw "$kind"
    read_theirs disk.raw vhdx
    write_ours disk.raw vhdx
done

for kind in sparse odd; do
    disk disk.raw "$kind" 2
    read_theirs disk.raw vhdx -o block_size=1M
    read_theirs disk.raw vhdx -o subformat=fixed,block_size=1M,block_state_zero=off
    read_theirs disk.raw vhdx -o block_size=64M,log_size=2M
    write_ours disk.raw vhdx --variant fixed
    write_ours disk.raw vhdx --variant dynamic --cluster-size 1M
    write_ours disk.raw vhdx --cluster-size 256M
done

disk disk.raw huge
read_theirs disk.raw vhdx
for options in '' '--variant fixed' '--cluster-size 1M'; do
    # shellcheck disable=SC2086
    ok tarn image convert disk.raw ours.vhdx --format vhdx --force $options
    read_back disk.raw ours.vhdx vhdx
    same_places disk.raw ours.vhdx
done

# what is said of it
disk disk.raw odd
ok tarn image convert disk.raw ours.vhdx --format vhdx --cluster-size 4M --force
ok tarn image info --json ours.vhdx
same "$(json "['format']") $(json "['variant']") $(json "['cluster_size']") $(json "['virtual_size']")" \
    "vhdx dynamic $((4 << 20)) $(stat -c %s disk.raw)"

# odd ends are rounded up to whole sectors, as by qemu-img
disk disk.raw bytes
ok tarn image convert disk.raw ours.vhdx --format vhdx --force
ok tarn image info --json ours.vhdx
same "$(json "['virtual_size']")" "$((($(stat -c %s disk.raw) + 511) / 512 * 512))" "a size that is no multiple of 512"

# a dynamic image is not larger than the data, and what is not written of a block is a hole
disk disk.raw sparse
ok tarn image convert disk.raw ours.vhdx --format vhdx --force
[ "$(stat -c %b ours.vhdx)" -le $(($(stat -c %b disk.raw) + 1024)) ] || die "the image is not sparse"

# refusals
mkdir new
fails 1 "variants are dynamic, fixed" tarn image convert disk.raw new/x --format vhdx --variant thin
fails 1 "no compression" tarn image convert disk.raw new/x --format vhdx --compression zlib
fails 1 "1 to 256 MiB" tarn image convert disk.raw new/x --format vhdx --cluster-size 64K
same "$(ls -A new)" "" "what failures have left"

echo "vhdx: passed"
