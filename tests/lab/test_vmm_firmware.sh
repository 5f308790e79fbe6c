#!/bin/bash
# An unmodified Debian disk, with a boot loader and an initramfs of its own, boots from a volume of a striped pool in tarn's
# own VMM, through SeaBIOS: with two processors, again after the guest's reboot, and its power-off ends the VMM. The clock's
# alarm interrupts it.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

scripts=$lab/../../scripts
firmware=/usr/share/seabios/bios-microvm.bin
[ -e $firmware ] || {
        echo "SKIP: no SeaBIOS on this machine"
        exit 77
}
image=$("$scripts/cached-image") || {
        echo "SKIP: no Debian image can be made here"
        exit 77
}
"$tarn" pool create tank "$work/disk1" "$work/disk2" --file-size 2G
"$tarn" image import "$image" tank/boot

cat >"$work/boot" <<'EOS'
#!/bin/sh
# usage: boot VMM FIRMWARE
export TARN_STATE_DIR=/run/tarn TARN_RUNTIME_DIR=/run/tarn
log=/run/console
vmm_log=/run/vmm-log
fail() {
        echo "boot: $1; the console's last words:"
        tail -c 3000 $log $vmm_log
        exit 1
}
# Until the console, or what the VMM says, has COUNT lines of WORDS.
wait_for() { # COUNT WORDS
        left=300
        until [ "$(grep -ah "$2" $log $vmm_log | wc -l)" -ge "$1" ]; do
                kill -0 $vmm 2>/dev/null || fail "the VMM ended before '$2'"
                left=$((left - 1))
                [ $left -gt 0 ] || fail "no '$2' came"
                sleep 1
        done
}
say() {
        echo "$1" >&9
}
now() {
        cut -d' ' -f1 /proc/uptime
}
mkdir -p /run/tarn
tarn pool import /dev/vda /dev/vdb || exit 1
tarn serve tank --nbd unix:/run/tarn/nbd --vhost-user /run/tarn >/run/server-log 2>&1 &
server=$!
until [ -S /run/tarn/boot.sock ]; do
        kill -0 $server || exit 1
        sleep 0.1
done
mkfifo /run/typed
begin=$(now)
"$1" --firmware "$2" --disk /run/tarn/boot.sock --cpus 2 --memory 384 </run/typed >$log 2>$vmm_log &
vmm=$!
exec 9>/run/typed
wait_for 1 '^root@lake'
echo "boot: a prompt from $begin to $(now)"
say 'timeout 60 rtcwake -m on -s 2 >/dev/null; echo "<alarm:$?>"; echo "<processors:$(nproc)>"; echo "<system:$(cat /sys/class/dmi/id/sys_vendor)>"'
wait_for 1 '^<alarm:0>'
wait_for 1 '^<processors:2>'
wait_for 1 '^<system:tarn>'
wait_for 2 '^root@lake'
say 'reboot -f'
wait_for 1 '^vmm_run: reset'
wait_for 2 'GRUB loading'
wait_for 3 '^root@lake'
say 'echo "<root:$(findmnt -no FSTYPE /)>"; poweroff -f'
wait_for 1 '^<root:ext4>'
left=120
while kill -0 $vmm 2>/dev/null && [ $left -gt 0 ]; do
        sleep 1
        left=$((left - 1))
done
kill -0 $vmm 2>/dev/null && fail 'the VMM does not end with its guest'
wait $vmm || fail "the VMM's status is $?"
echo "boot: off at $(now)"
kill $server
wait $server || fail "the server's status is $?"
EOS
chmod +x "$work/boot"
lab --kvm --program "$tarn" --program "$VMM_RUN" --file "$work/boot=lab/bin/boot" --file "$firmware=lab/firmware" \
        --disk "$work/disk1" --disk "$work/disk2" --timeout 1100 -- boot "$(basename "$VMM_RUN")" /lab/firmware ||
        fail 'Debian does not boot'
"$tarn" pool check tank
