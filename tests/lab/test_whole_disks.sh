#!/bin/bash
# A pool on whole disks under Debian's own kernel, its volume attached by the kernel's NBD client: the
# machine loses power while it writes, and finds everything that it had synchronised.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

arguments=(--memory 768 --program mke2fs --program e2fsck
        --program sync "${pool_arguments[@]}" --file "$lab/whole-disks=lab/whole-disks")
for disk in 1 2 3; do
        truncate -s 192M "$work/disk$disk"
        arguments+=(--disk "$work/disk$disk")
done

filled() {
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        grep -q '^filled' "$work/output"
}

start_guest "${arguments[@]}" --timeout 300 -- sh /lab/whole-disks fill
wait_until 240 filled || fail "the guest is too slow"
end_guest
lab "${arguments[@]}" --timeout 240 -- sh /lab/whole-disks verify
