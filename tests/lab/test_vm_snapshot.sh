#!/bin/bash
# A machine's snapshot while its guest writes to ext4, and reads from it: memory, devices and disk are of one instant. What is
# changed afterwards is undone, the guest runs on from there, each of its files is what it knows of it, what it had just read is
# what is on the disk, and its file system is sound; disks alone are as after a power cut. A disk that was attached while it ran
# is part of it, in the slot that the guest found it in, also when it was taken away since.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools mke2fs e2fsck

make_nested_guest --module ext4 --program mke2fs --file "$lab/vm-snapshot-guest=lab/vm-snapshot-guest" \
        sh /lab/vm-snapshot-guest
lab --kvm --timeout 600 "${nested_arguments[@]}" --program "$tarn" --program e2fsck --file "$lab/vm-lib=lab/vm-lib" \
        --file "$lab/vm-snapshot=lab/vm-snapshot" -- sh /lab/vm-snapshot ||
        fail "a machine's snapshot is not of one instant"
