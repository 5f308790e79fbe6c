#!/bin/bash
# A server listens on vsock, and clients reach it, in plain text and over TLS: in a guest, as its kernel has the
# loopback that many a host lacks.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

for program in nbdinfo nbdcopy; do
        command -v $program >/dev/null || { echo "SKIP: $program is not installed"; exit 77; }
done
truncate -s 192M "$work/disk"
lab --memory 768 --program "$tarn" --program nbdinfo --program nbdcopy --module vsock_loopback \
        --file "$lab/vsock=lab/vsock" --disk "$work/disk" --timeout 240 -- sh /lab/vsock
