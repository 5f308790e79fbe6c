#!/bin/bash
# A machine of 'tarn vm' with four processors and memory of huge pages, under KVM; and what becomes of one whose kernel
# panics, as its file says: it is ended, and that is told, or it begins anew.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

guest_initramfs=$work/initramfs
kernel=$("$lab/kernel") || exit $?
"$lab/guest-initramfs" --module button --module evdev --module pvpanic-mmio --file "$lab/vm-guest=lab/vm-guest" \
        "$guest_initramfs" sh /lab/vm-guest || exit $?
lab --kvm --timeout 600 --program "$tarn" --file "$kernel/vmlinuz=lab/guest/vmlinuz" \
        --file "$guest_initramfs=lab/guest/initramfs" --file "$lab/vm-lib=lab/vm-lib" --file "$lab/vm-machine=lab/vm-machine" -- \
        sh /lab/vm-machine || fail "a machine is not as its file says"
