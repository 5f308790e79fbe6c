#!/bin/bash
# A guest of tarn's VMM with as many processors as a machine may have: each of them works. Long tier: the host has two.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

cpus=64
# shellcheck disable=SC2016  # it is the guest's shell that counts
make_nested_guest sh -c 'echo "guest: processors $(nproc)"
        for n in $(seq 0 $(($(nproc) - 1))); do
                taskset -c $n sh -c "dd if=/dev/zero of=/dev/null bs=1M count=20 2>/dev/null && echo guest: $n works" &
        done
        wait'
lab --kvm --memory 3072 --timeout 600 "${nested_arguments[@]}" --program "$VMM_RUN" -- \
        "$(basename "$VMM_RUN")" --kernel /lab/guest/vmlinuz --initrd /lab/guest/initramfs \
        --cmdline 'console=ttyS0 panic=-1 quiet' --cpus $cpus --memory 1024 >"$work/console" || fail "the guest does not come to its end"
tr -d '\r' <"$work/console" >"$work/told"
grep -qx "guest: processors $cpus" "$work/told" || fail "the guest has not $cpus processors: $(grep processors "$work/told")"
[ "$(grep -c '^guest: [0-9]* works$' "$work/told")" = $cpus ] || fail "some of its processors do not work"
