#!/bin/bash
# A pool whose member fails below it in a real kernel (dm-flakey): writes that fail, reads that fail, reads of something
# else, and a disk that answers writes and flushes and forgets them. Errors are reported as errors, nothing wrong is read,
# and where the disk did not lie all that was flushed is there when it works again.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

need_tools dmsetup nbd-client
truncate -s 128M "$work/disk1" "$work/disk2"
status=0
lab "${pool_arguments[@]}" --program dmsetup --program "$ROUNDSLOAD" --module dm-flakey --io-errors \
        --file "$lab/flakey=lab/flakey" --disk "$work/disk1" --disk "$work/disk2" --timeout 1000 -- sh /lab/flakey \
        >"$work/output" || status=$?
cat "$work/output"
[ $status = 0 ] || fail "the guest's status is $status"
