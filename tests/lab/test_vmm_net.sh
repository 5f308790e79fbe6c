#!/bin/bash
# A guest of our own VMM has a network: by a tap device, by one with vhost-net, by passt; and vsock. It sends and
# receives, whole and in order.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools passt socat

make_nested_guest --program socat --file "$lab/vmm-net-guest=lab/vmm-net-guest" sh /lab/vmm-net-guest
# shellcheck disable=SC2016  # the machine's shell expands it
lab --kvm "${nested_arguments[@]}" --program "$VMM_RUN" --program passt --program socat \
        --file "$lab/vmm-net=lab/bin/vmm-net" --timeout 300 -- sh -c 'set -e
                for how in tap vhost stream vsock; do vmm-net $how; done' || fail "a guest's network does not work"
