#!/bin/bash
# Debian boots at once from a volume that stands on a compressed qcow2 image, while the image is copied and the server
# is killed and started again, in the midst of the boot and later. What the guest wrote and what it reads are right before
# and after the image has gone.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

scripts=$lab/../../scripts
command -v qemu-system-x86_64 >/dev/null || {
        echo "SKIP: no qemu-system-x86_64 on this machine"
        exit 77
}
image=$("$scripts/cached-image") || {
        echo "SKIP: no Debian image can be made here"
        exit 77
}
"$tarn" image convert "$image" "$work/golden.qcow2" --format qcow2 --compression zstd
"$tarn" pool create tank "$work/disk" --file-size 4G
"$tarn" volume create tank/boot --base "$work/golden.qcow2"
start_vhost_server tank

in_guest() {
        "$scripts/guest" --timeout 120 "$work/console" "$1" </dev/null
}
base() { # FIELD
        "$tarn" volume show tank/boot --json |
                /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["base"][sys.argv[1]])' "$1"
}
is_complete() {
        [ "$(base complete)" = True ]
}
# What is in the image, read past the guest's cache.
sum_of_image() {
        in_guest 'echo 3 > /proc/sys/vm/drop_caches; cd /usr && find lib/x86_64-linux-gnu bin -xdev -type f -size -2000k | sort | xargs cat | sha256sum'
}

accel=$("$scripts/accelerator")
qemu-system-x86_64 -machine q35,memory-backend=memory -accel $accel -cpu max -smp 2 -m 512 -nodefaults \
        -no-user-config -no-reboot -display none -object memory-backend-memfd,id=memory,size=512M,share=on \
        -chardev "socket,id=boot,path=$work/vhost/boot.sock,reconnect=1" \
        -device vhost-user-blk-pci,chardev=boot,num-queues=1,bootindex=1 \
        -chardev "socket,id=console,path=$work/console,server=on,wait=off,logfile=$work/console.log" \
        -serial chardev:console 2>"$work/guest-errors" </dev/null &
guest=$!
boots() { # it has read 4 MiB
        "$tarn" volume show tank/boot --json | /usr/bin/python3 -c 'import json, sys
clients = [c for a in json.load(sys.stdin)["attached"] for c in a["clients"]]
sys.exit(sum(c["read_bytes"] for c in clients) < 4 << 20)'
}
wait_until 120 boots || fail "nothing boots from a volume on an image"
[ "$(base copied)" = 0 ] || fail "something was copied that nobody asked for"
"$tarn" volume hydrate tank/boot --bandwidth 2M
sleep 3
kill_server
start_vhost_server tank
[ "$(base hydrating)" = True ] || fail "copying does not go on after a kill"
"$scripts/guest" --timeout 240 "$work/console" --wait || {
        tail -5 "$work/guest-errors" >&2
        fail "Debian does not boot from a volume on an image"
}
echo "booted: $(in_guest 'uname -sr'), $(base copied) bytes of the image in the pool"
[ "$(base copied)" -gt 0 ] || fail "nothing is copied while the guest boots"
! is_complete || fail "the image was copied before the guest was up"

want=$(sum_of_image)
[ ${#want} -ge 64 ] || fail "the guest cannot read its files: $want"
"$tarn" volume hydrate tank/boot --bandwidth 20M
in_guest 'dd if=/dev/urandom of=/root/made bs=1M count=20 status=none; sync; sha256sum </root/made >/root/made.sum; sync' ||
        fail "the guest cannot write"
kill_server
start_vhost_server tank
[ "$(base complete)" = True ] || [ "$(base hydrating)" = True ] || fail "copying does not go on after a kill"
[ "$(sum_of_image)" = "$want" ] || fail "the guest reads something else while its image is copied"
"$tarn" volume hydrate tank/boot
wait_until 120 is_complete || fail "the image is not copied: $("$tarn" volume show tank/boot)"
rm "$work/golden.qcow2"
kill_server
start_vhost_server tank
[ "$(sum_of_image)" = "$want" ] || fail "the guest reads something else without its image"
in_guest 'echo 3 > /proc/sys/vm/drop_caches; [ "$(sha256sum </root/made)" = "$(cat /root/made.sum)" ]' ||
        fail "what the guest wrote is not there"

"$scripts/guest" --timeout 120 "$work/console" --poweroff
wait "$guest" || fail "QEMU failed: $(tail -1 "$work/guest-errors")"
guest=
! grep -aE 'I/O error|EXT4-fs error' "$work/console.log" || fail "the guest saw errors"
stop_server
"$tarn" pool check --data tank
