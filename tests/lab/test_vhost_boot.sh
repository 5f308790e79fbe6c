#!/bin/bash
# SeaBIOS, GRUB and Debian boot from a volume over vhost-user-blk. In that guest a resized disk is of its new size
# without a reboot, a second disk has four queues, and what is discarded gives its space back to the pool.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

scripts=$lab/../../scripts
mebibyte=1048576
command -v qemu-system-x86_64 >/dev/null || {
        echo "SKIP: no qemu-system-x86_64 on this machine"
        exit 77
}
image=$("$scripts/cached-image") || {
        echo "SKIP: no Debian image can be made here"
        exit 77
}
"$tarn" pool create tank "$work/disk" --file-size 4G
"$tarn" image import "$image" tank/boot
"$tarn" volume create tank/data 128M
start_vhost_server tank

# Under an emulated processor that shares its host: the second console takes its time.
in_guest() {
        "$scripts/guest" --timeout 120 "$work/console" "$1" </dev/null
}
used() {
        "$tarn" pool status tank --json |
                /usr/bin/python3 -c 'import json, sys; d = json.load(sys.stdin); print(d.get("used", d.get("pools", [d])[0].get("used")))'
}
guest_has_size() { # BYTES
        [ "$(in_guest 'blockdev --getsize64 /dev/vdb')" = "$1" ]
}
used_is_below() { # BYTES
        [ "$(used)" -lt "$1" ]
}

accel=$("$lab/../../scripts/accelerator")
qemu-system-x86_64 -machine q35,memory-backend=memory -accel $accel -cpu max -smp 2 -m 512 -nodefaults \
        -no-user-config -no-reboot -display none -object memory-backend-memfd,id=memory,size=512M,share=on \
        -chardev "socket,id=boot,path=$work/vhost/boot.sock,reconnect=1" \
        -device vhost-user-blk-pci,chardev=boot,num-queues=1,bootindex=1 \
        -chardev "socket,id=data,path=$work/vhost/data.sock,reconnect=1" \
        -device vhost-user-blk-pci,chardev=data,num-queues=4 \
        -chardev "socket,id=console,path=$work/console,server=on,wait=off,logfile=$work/console.log" \
        -serial chardev:console 2>"$work/guest-errors" </dev/null &
guest=$!
"$scripts/guest" --timeout 240 "$work/console" --wait || {
        tail -5 "$work/guest-errors" >&2
        fail "Debian does not boot from vhost-user-blk"
}
echo "booted: $(in_guest 'uname -sr')"

queues=$(in_guest 'ls /sys/block/vdb/mq | wc -l')
# A guest of two processors uses as many.
[ "$queues" = 2 ] || [ "$queues" = 4 ] || fail "the second disk has $queues queues"

guest_has_size $((128 * mebibyte)) || fail "the second disk is not of its size"
"$tarn" volume resize tank/data 192M
wait_until 60 guest_has_size $((192 * mebibyte)) || fail "the guest does not see the new size"
echo "resized under the guest"

in_guest 'dd if=/dev/urandom of=/dev/vdb bs=1M count=64 oflag=direct status=none && sync' || fail "cannot write"
full=$(used)
in_guest 'blkdiscard -o 0 -l 64M /dev/vdb && sync' || fail "cannot discard"
wait_until 60 used_is_below $((full - 60 * mebibyte)) || fail "$full bytes were used, and $(used) are after the discard"
echo "discarded: used went from $full to $(used)"
in_guest 'cmp -n 67108864 /dev/vdb /dev/zero' || fail "what was discarded does not read as zeroes"

"$scripts/guest" --timeout 120 "$work/console" --poweroff
wait "$guest" || fail "QEMU failed: $(tail -1 "$work/guest-errors")"
guest=
! grep -aE 'I/O error|EXT4-fs error' "$work/console.log" || fail "the guest saw errors"
stop_server
"$tarn" pool check tank
