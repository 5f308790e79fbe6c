#!/bin/bash
# The disks of a machine of 'tarn vm' on a striped pool, while fio verifies what it writes in the guest: the pool's server is
# killed twice and started again, and fio sees no error; disks are as the file says, one of them read-only; a volume that
# grows, one that is attached and one that is detached are seen by the guest.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools fio

make_nested_guest --program fio --file "$lab/vm-disks-guest=lab/vm-disks-guest" \
        --file "$lab/vm-disks.fio=lab/vm-disks.fio" sh /lab/vm-disks-guest
lab --kvm --memory 2048 --timeout 600 "${nested_arguments[@]}" --program "$tarn" --file "$lab/vm-lib=lab/vm-lib" \
        --file "$lab/vm-disks=lab/vm-disks" -- sh /lab/vm-disks || fail "a machine's disks are not as they should be"
