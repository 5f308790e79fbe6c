#!/bin/bash
# The same seed gives the same output, trace included, whatever memory is found at and filled with, and however many
# processes share the work.
set -eu
sim=$1
shift
first=$(MALLOC_PERTURB_=0 "$sim" "$@" --jobs 1)
second=$(MALLOC_PERTURB_=165 SIM_UNUSED=$(head -c 5000 /dev/zero | tr '\0' x) "$sim" "$@" --jobs 3)
if [ "$first" != "$second" ]; then
        diff <(printf '%s\n' "$first") <(printf '%s\n' "$second") | head -20
        exit 1
fi
tail -1 <<<"$first"
