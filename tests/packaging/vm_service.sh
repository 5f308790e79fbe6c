#!/bin/bash
# Machines that start with the host, in a Debian machine of its own with systemd and KVM: those of tarn-vms.service and one
# of tarn-vm@.service are there after a boot, on the pool's own service and within their limits; stopping a service, and the
# host's end, press their power buttons; one whose VMM is killed is started again. What it needs of the build: machine.sh.
set -eu
scripts=$(cd "$(dirname "$0")/../../scripts" && pwd)
lab=$scripts/../tests/lab
. "$scripts/lib.sh"
. "$scripts/../tests/packaging/machine.sh"

guest=$tree/root/usr/local/guest
mkdir -p "$guest" "$tree/root/etc/tarn/vm"
kernel=$("$lab/kernel") || exit $?
cp "$kernel/vmlinuz" "$guest/"
"$lab/guest-initramfs" --file "$lab/vm-guest=lab/vm-guest" "$guest/initramfs" sh /lab/vm-guest || exit $?
machine() { # NAME LINE...
    printf '%s\n' "name: $1" 'memory: 128M' 'kernel: /usr/local/guest/vmlinuz' 'initrd: /usr/local/guest/initramfs' \
        'cmdline: console=ttyS0 panic=-1 quiet loglevel=4' "console-log: /var/log/$1.console" \
        'disks:' "  - {volume: tank/$1, size: 32M, serial: $1}" "${@:2}" >"$tree/root/etc/tarn/vm/$1.yaml"
}
machine web 'autostart: yes' 'cpu-max: 150%'
machine db
machine other
chmod 755 "$tree/root" "$tree/root/etc"

truncate -s 512M disk1 disk2
boot_and_install "$work/disk1" "$work/disk2"
in_guest 'tarn pool create tank /dev/vdc /dev/vdd && systemctl enable tarn@tank tarn-vms tarn-vm@db'

nested=$("$scripts/accelerator" --nested)
if [ "$nested" = kvm ]; then
    processor=host
else
    accelerator=$nested processor=$emulated_host_processor
    in_guest "sed -i 's/ quiet\$/ quiet $emulated_host_options $(emulated_clock_options)/' /boot/grub/grub.cfg && grep -c tsc_early /boot/grub/grub.cfg"
fi
memory=1024
power_off

# is_up NAME N: it has come up N times. presses NAME N: its power button was pressed.
is_up() {
    in_guest_until "[ \$(cat /var/log/$1.console 2>/dev/null | grep -c '^guest: up, disk $1') = $2 ] && tarn vm list | grep -q '^$1 *running'"
}
presses() {
    in_guest "[ \$(grep -c '^guest: button' /var/log/$1.console) = $2 ]"
}
is_off() {
    in_guest "tarn vm show $1"
    grep -q '^state *off' <<<"$out" || die "'$1' is not off: $out"
}

boot "$work/disk1" "$work/disk2"
is_up web 1
is_up db 1
in_guest 'tarn vm list'
! grep -q '^other' <<<"$out" || die "a machine that is not to start has started: $out"
# Both wait for the pool's service, and have none of their own.
in_guest 'tarn pool status tank | grep -q "by process $(systemctl show -P MainPID tarn@tank)\$" && tarn pool status tank'
machines=$(awk '/^machines/ { list = 1; sub("machines", "") } /^$/ { list = 0 } list' <<<"$out" | xargs -n 1 | sort | xargs)
same "$machines" 'db web' "the pool's machines"
in_guest 'cat /sys/fs/cgroup/system.slice/tarn-vms.service/tarn-web/cpu.max'
same "$out" '150000 100000' "the limit of web's time"
in_guest 'systemctl status --no-pager tarn-vms tarn-vm@db; for i in $(pgrep -x tarn-vmm); do cat /proc/$i/cgroup; done'
for group in tarn-vms.service/tarn-web tarn-vm@db.service; do
    grep -q "/$group" <<<"$out" || die "no machine is in '$group': $out"
done

in_guest 'systemctl stop tarn-vm@db && [ $(systemctl show -P Result tarn-vm@db) = success ]'
presses db 1
is_off db
in_guest 'systemctl start tarn-vm@db'
is_up db 2
in_guest 'kill -9 $(for i in $(pgrep -x tarn-vmm); do ! grep -q tarn-vm@db /proc/$i/cgroup || echo $i; done)'
is_up db 3
in_guest 'systemctl show -P NRestarts tarn-vm@db'
same "$out" 1 "how often its service was started again"

in_guest 'systemctl stop tarn-vms && systemctl is-active tarn@tank tarn-vm@db'
presses web 1
is_off web
in_guest 'systemctl start tarn-vms'
is_up web 2
power_off

boot "$work/disk1" "$work/disk2"
presses web 2
presses db 2
is_up web 3
is_up db 4
in_guest 'journalctl -b -u "tarn*"'
! grep -qiE 'not permitted|denied|read-only file system|in use by process' <<<"$out" || die "the services are kept from something: $out"
power_off
echo "vm_service: passed"
