#!/bin/bash
# A machine of 'tarn vm' under KVM: started from a file, its guest works, is paused, loses its server, starts anew, and is
# ended by its power button; whatever is killed, no process and no socket is left.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

guest_initramfs=$work/initramfs
kernel=$("$lab/kernel") || exit $?
"$lab/guest-initramfs" --module button --module evdev --file "$lab/vm-guest=lab/vm-guest" "$guest_initramfs" \
        sh /lab/vm-guest || exit $?
lab --kvm --timeout 800 --program "$tarn" --file "$kernel/vmlinuz=lab/guest/vmlinuz" \
        --file "$guest_initramfs=lab/guest/initramfs" --file "$lab/vm-lib=lab/vm-lib" --file "$lab/vm-life=lab/vm-life" -- sh /lab/vm-life ||
        fail "a machine's life is not as it should be"
