#!/bin/bash
# qcow2 as tarn writes it: every variant, compression and size of clusters, of every kind of content.
set -eu
. "$(dirname "$0")/common.sh"

# sound: check_image() lets clusters that nothing uses pass; here are none
sound() {
    ok qemu-img check --output=json ours.qcow2
    same "$(json ".get('corruptions', 0)") $(json ".get('leaks', 0)")" "0 0" "errors and leaks, for qemu-img"
    ok tarn image check --json ours.qcow2
    same "$(json "['errors']") $(json "['leaks']")" "0 0" "errors and leaks"
    same "$(json "['end']") $(json "['allocated']")" "$(stat -c '%s %s' ours.qcow2)" "end and clusters in use"
}

for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    for options in "" "--compression zlib"; do
        # shellcheck disable=SC2086 # words
        write_ours disk.raw qcow2 $options
        sound
    done
done

disk disk.raw odd 2
for size in 512 4K 128K 2M; do
    for options in "" "--compression zstd" "--variant v2 --compression zlib"; do
        # shellcheck disable=SC2086
        write_ours disk.raw qcow2 --cluster-size "$size" $options
        sound
    done
done

ok qemu-img info ours.qcow2
grep -q 'compat: 0.10' <<<"$out" || die "v2 is $out"

# A window of 4 KiB: what qemu-img's library reads with a larger one is no proof, so nothing may reach back
# further.
disk disk.raw dense
write_ours disk.raw qcow2 --compression zlib
ok $python -I -S "$here/qcow2_windows.py" ours.qcow2

# Compression makes it smaller, and not much less so than qemu-img's.
ok qemu-img convert -c -O qcow2 disk.raw theirs.qcow2
[ "$(stat -c %s ours.qcow2)" -le $(($(stat -c %s theirs.qcow2) * 11 / 10)) ] ||
    die "ours has $(stat -c %s ours.qcow2) bytes, theirs $(stat -c %s theirs.qcow2)"

fails 1 "no variant 'v1'" tarn image convert disk.raw new.qcow2 --format qcow2 --variant v1
fails 1 "no compression 'lz4'" tarn image convert disk.raw new.qcow2 --format qcow2 --compression lz4
fails 1 "no clusters of" tarn image convert disk.raw new.qcow2 --format qcow2 --cluster-size 4M
fails 1 "v2" tarn image convert disk.raw new.qcow2 --format qcow2 --variant v2 --compression zstd
disk disk.raw huge
fails 1 "holds at most" tarn image convert disk.raw new.qcow2 --format qcow2 --cluster-size 512
[ ! -e new.qcow2 ] || die "a failure has left a file"
