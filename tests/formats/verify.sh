#!/bin/bash
# --verify: a copy that holds what it was made of counts as before; a source that says something else the second time, and
# a target that does not keep what is written to it, are found, and nothing is left.
set -eu
. "$(dirname "$0")/common.sh"
type nbdkit >/dev/null 2>&1 || skip "there is no nbdkit"

# nbdkit_now SOCKET ARGUMENT...: until the end.
nbdkit_now() {
    local socket=$1
    shift
    nbdkit -f -U "$work/$socket" "$@" >nbdkit.log 2>&1 &
    server_pids+=($!)
    for _ in $(seq 200); do
        [ ! -S "$socket" ] || return 0
        sleep 0.05
    done
    die "nbdkit does not serve $socket"
}
uri() { # SOCKET
    echo "nbd+unix:///?socket=$work/$1"
}
no_file() {
    local left
    left=$(find . -name 'out*') && [ -z "$left" ] || die "a failure has left $left"
}

# whatever it is written as, it is read again: other files that belong to it, backing files, what a size is rounded up to
disk disk.raw sparse
disk odd.raw bytes
for options in "raw" "qcow2 --compression zstd" "qcow2 --cluster-size 2M --compression zlib" "vmdk --variant twoGbMaxExtentFlat" \
    "vmdk --variant streamOptimized" "vdi" "vhd --variant fixed" "vhdx"; do
    # shellcheck disable=SC2086
    for from in disk.raw odd.raw; do
        ok tarn image convert $from out.img --from-format raw --format $options --verify
        grep -q ', verified$' <<<"$out" || die "it is not said that $options is verified: $out"
        rm out*
    done
done
ok qemu-img create -q -f qcow2 -b disk.raw -F raw over.qcow2 50M
ok qemu-io -f qcow2 -c "write -P 7 45M 3M" over.qcow2
ok tarn image convert over.qcow2 out.qcow2 --format qcow2 --verify
ok qemu-img compare over.qcow2 out.qcow2
rm out.qcow2

# one that keeps what is written, and one that has another byte at 1234567
head -c 40M /dev/urandom >kept.raw
cp kept.raw lost.raw
nbdkit_now keeps.sock file kept.raw
nbdkit_now loses.sock eval get_size='echo 40M' can_write='exit 0' can_flush='exit 0' flush='exit 0' \
    pread="dd if=$work/lost.raw skip=\$4 count=\$3 bs=1M iflag=skip_bytes,count_bytes status=none" \
    pwrite="dd of=$work/lost.raw seek=\$4 bs=1M oflag=seek_bytes conv=notrunc status=none
        [ \$4 -gt 1234567 ] || [ \$((\$4 + \$3)) -le 1234567 ] ||
            printf U | dd of=$work/lost.raw seek=1234567 bs=1 conv=notrunc status=none"

# changes SOCKET: of 3 MiB, byte 2222222 is another once it has been read.
changes() {
    rm -f "$1"
    # shellcheck disable=SC2016
    nbdkit_now "$1" --filter=noextents eval get_size='echo 3M' pread='
        head -c $3 /dev/zero | tr "\0" A >$tmpdir/piece
        if [ $4 -le 2222222 ] && [ $(($4 + $3)) -gt 2222222 ] && ! mkdir $tmpdir/seen 2>/dev/null; then
            printf B | dd of=$tmpdir/piece bs=1 seek=$((2222222 - $4)) conv=notrunc status=none
        fi
        cat $tmpdir/piece'
}

# fills SOCKET: 3 MiB are a hole, and data once that has been said.
fills() {
    rm -f "$1"
    # shellcheck disable=SC2016
    nbdkit_now "$1" eval get_size='echo 3M' can_extents='exit 0' pread='head -c $3 /dev/zero | tr "\0" A' \
        extents='mkdir $tmpdir/said 2>/dev/null && echo "0 3M hole,zero" || echo "0 3M"'
}

ok tarn image convert disk.raw "$(uri keeps.sock)" --force --verify
cmp disk.raw kept.raw
fails 1 "offset 1234567 of '.*loses.sock' differs from 'disk.raw', of which it was made" \
    tarn image convert disk.raw "$(uri loses.sock)" --force --verify
changes changes.sock
fails 1 "offset 2222222 of 'out.qcow2' differs from '.*changes.sock'.*written to meanwhile" \
    tarn image convert "$(uri changes.sock)" out.qcow2 --format qcow2 --verify
fills fills.sock
fails 1 "offset 0 of 'out.raw' differs from '.*fills.sock'" tarn image convert "$(uri fills.sock)" out.raw --verify
no_file

ok tarn pool create tank d0 --file-size 256M
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    changes changes.sock
    fails 1 "offset 2222222 of '.*changes.sock' differs from the volume" tarn image import "$(uri changes.sock)" tank/x --verify
    fills fills.sock
    fails 1 "offset 0 of '.*fills.sock' differs from the volume" tarn image import "$(uri fills.sock)" tank/x --verify
    ok tarn volume list --json
    ! grep -q tank/x <<<"$out" || die "a failure has left a volume: $out"
    ok tarn image import over.qcow2 "tank/$mode" --size 60M --verify --allow .
    grep -q ', verified$' <<<"$out" || die "it is not said that the volume is verified: $out"
    ok tarn image export "tank/$mode" out.vmdk --format vmdk --variant twoGbMaxExtentSparse --verify
    rm out*
    ok tarn image export "tank/$mode" out.raw --verify
    cmp -n $((40 << 20)) disk.raw out.raw
    rm out*
done
echo "verify: passed"
