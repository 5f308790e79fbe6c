#!/bin/bash
# From which of its disks a machine of 'tarn vm' boots: boot sectors that say their names, by SeaBIOS, under KVM.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

firmware=/usr/share/seabios/bios-microvm.bin
[ -e $firmware ] || {
        echo "SKIP: no SeaBIOS on this machine"
        exit 77
}
lab --kvm --timeout 300 --program "$tarn" --file "$firmware=$firmware" --file "$lab/vm-lib=lab/vm-lib" \
        --file "$lab/vm-boot=lab/vm-boot" -- sh /lab/vm-boot || fail "a machine does not boot from the disk that its file says"
