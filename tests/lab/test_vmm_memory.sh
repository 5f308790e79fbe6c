#!/bin/bash
# A guest of our own VMM gets more memory while it runs, and gives memory back: what it has free by itself, and what it is
# asked for.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

make_nested_guest --file "$lab/vmm-memory-guest=lab/vmm-memory-guest" sh /lab/vmm-memory-guest
lab --kvm "${nested_arguments[@]}" --program "$VMM_RUN" --file "$lab/vmm-memory=lab/bin/vmm-memory" --timeout 300 \
        -- vmm-memory || fail "a guest's memory does not come and go"
