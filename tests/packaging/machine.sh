# Sourced by tests of services, which need a machine of their own: Debian's, with systemd. UNITS, PREFIX, UNITDIR, LIBEXECDIR,
# VHOSTLOAD: of the build.
sources=$scripts/../server/systemd
. "$scripts/../tests/protocol/cli_common.sh"
PATH=$PATH:/sbin:/usr/sbin

for tool in qemu-system-x86_64 qemu-img mmdebstrap mke2fs; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
grep -q '^VERSION_CODENAME=bookworm' /etc/os-release || skip "the machine's libraries are for this release, not for Debian 12"
image=$("$scripts/cached-image") || die "there is no Debian image"

# What is installed, and the libraries that the guest has not; brought on a disk. A test may add to root/.
tree=$work/tree
mkdir -p "$tree/root$PREFIX/bin" "$tree/root$UNITDIR" "$tree/root$LIBEXECDIR/tarn" "$tree/libraries"
cp "$TARN" "$tree/root$PREFIX/bin/tarn"
cp "$TARN-engine" "$tree/root$LIBEXECDIR/tarn/"
cp "$VHOSTLOAD" "$tree/root$PREFIX/bin/vhostload"
cp "$UNITS"/tarn*.service "$sources"/tarn*.socket "$sources"/tarn*.target "$tree/root$UNITDIR/"
install "$UNITS/reload" "$tree/root$LIBEXECDIR/tarn/reload"
{ ldd "$TARN-engine" && ldd "$VHOSTLOAD"; } | grep -o '/[^ ]*' | sort -u | xargs cp -L -t "$tree/libraries"
cat >"$tree/setup" <<'SETUP'
set -eu
cp -a /media/root/. /
for library in /media/libraries/*; do
    [ -e "/lib/x86_64-linux-gnu/${library##*/}" ] || [ "${library#*/ld-linux}" != "$library" ] || cp "$library" /lib/x86_64-linux-gnu/
done
ldconfig
systemctl daemon-reload
SETUP
qemu-img create -q -f qcow2 -b "$image" -F raw root.qcow2

accelerator=$("$scripts/accelerator") processor=max memory=512
boot() { # DISK...
    local disk arguments=()
    for disk in "$@"; do
        arguments+=(-drive "file=$disk,format=raw,if=virtio")
    done
    rm -f console.sock
    qemu-system-x86_64 -m "$memory" -smp 2 -cpu "$processor" -accel "$accelerator" -nodefaults -no-reboot -display none \
        -drive file=root.qcow2,if=virtio "${arguments[@]}" \
        -chardev socket,id=c,path=console.sock,server=on,wait=off,logfile=console.log,logappend=on -serial chardev:c \
        </dev/null >qemu.log 2>&1 &
    guest=$!
    server_pids+=("$guest")
    "$scripts/guest" --timeout 600 console.sock --wait || die "the guest does not boot"
}

power_off() {
    "$scripts/guest" --timeout 400 console.sock --poweroff || die "the guest does not end"
    wait "$guest" || die "QEMU failed"
}

# in_guest COMMAND: its output is in $out.
in_guest() {
    echo "$1"
    out=$("$scripts/guest" --timeout 400 console.sock "$1") ||
        die "in the guest failed '$1': $out $("$scripts/guest" --timeout 60 console.sock 'journalctl -b -u "tarn*" | tail -40')"
}

# The same until it succeeds, for five minutes at least.
in_guest_until() {
    in_guest "for i in \$(seq 1500); do { $1; } && break; sleep 0.2; done; $1"
}

# The first boot, with the tree as the first disk.
boot_and_install() { # DISK...
    truncate -s 256M tree.img
    mke2fs -q -t ext4 -d "$tree" tree.img
    boot "$work/tree.img" "$@"
    in_guest 'mount /dev/vdb /media && sh /media/setup && umount /media'
}
