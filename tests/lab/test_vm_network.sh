#!/bin/bash
# A machine of 'tarn vm' that a user starts without any right: by passt it gets an address, fetches from the host and is
# reached on a forwarded port, also after a reset and when passt was killed; a tap device and vsock lead to the host and
# back; it finds the disk for cloud-init by its label, and has random numbers. Its devices interrupt by messages, and after
# the reset by lines. Its kernel warns of nothing.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools passt blkid socat

make_nested_guest --module isofs --program blkid --program socat --file "$lab/vm-network-guest=lab/vm-network-guest" \
        sh /lab/vm-network-guest
lab --kvm --timeout 400 "${nested_arguments[@]}" --program "$tarn" --program passt --program socat \
        --file "$lab/vm-lib=lab/vm-lib" --file "$lab/vm-network=lab/vm-network" -- sh /lab/vm-network || fail "a machine's network is not as it should be"
