#!/bin/bash
# The unit tests of vhost-net and vhost-vsock, where there are both: in the lab's machine.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# shellcheck disable=SC2016  # the machine's shell expands it
lab --kvm --program "$TEST_VMM_VHOST" -- sh -c 'test_vmm_vhost >/tmp/log 2>&1
        status=$?
        cat /tmp/log
        ! grep -q SKIP /tmp/log && exit $status' || fail "vhost is not used as it has to be"
