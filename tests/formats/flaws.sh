#!/bin/bash
# Images that say of themselves that something is wrong with them: who takes their content is told so, and gets it.
set -eu
. "$(dirname "$0")/common.sh"

# The bits of incompatible features are in the eight bytes from 72 on.
disk disk.raw small
for bits in 0 1 2 3; do
    ok qemu-img convert -O qcow2 disk.raw bits$bits.qcow2
    printf '%b' "\\$bits" | dd of=bits$bits.qcow2 bs=1 seek=79 conv=notrunc status=none
done
# A VHD's footer, and whether a VMDK was closed.
ok tarn image convert disk.raw closed.vhd --format vhd
cp closed.vhd open.vhd
printf x | dd of=open.vhd bs=1 seek=$(($(stat -c %s open.vhd) - 400)) conv=notrunc status=none
ok tarn image convert disk.raw closed.vmdk --format vmdk
cp closed.vmdk open.vmdk
printf '\1' | dd of=open.vmdk bs=1 seek=72 conv=notrunc status=none

# told WORDS FILE COMMAND...: one note, with these words and what to do; without words none.
told() {
    local words=$1 file=$2
    shift 2
    ok "$@"
    if [ -z "$words" ]; then
        ! grep "^note: " err || die "'$*' has a note"
    else
        same "$(grep -c "^note: " err)" 1 "notes of '$*'"
        grep -q "^note: '.*$file' $words.*; 'tarn image check' tells more$" err || die "'$*' notes: $(cat err)"
    fi
}

# each COMMAND: with every image, and the words of its note.
each() {
    $1 "" bits0.qcow2
    $1 "" bits1.qcow2 # dirty: refcounts, which nobody reads here
    $1 "is marked as corrupt" bits2.qcow2
    $1 "is marked as corrupt" bits3.qcow2
    $1 "" closed.vhd
    $1 "was not closed" open.vhd
    $1 "" closed.vmdk
    $1 "was not closed" open.vmdk
}

convert() {
    told "$1" "$2" tarn image convert "$2" back.raw --force
    cmp disk.raw back.raw
}
import() {
    told "$1" "$2" tarn image import "$2" "tank/$mode-$2"
}
create() {
    told "$1" "$2" tarn volume create "tank/$mode-on-$2" --base "$2"
}

each convert
ok tarn pool create tank d0 --file-size 128M
mode=direct
each import
each create
serve_now tank
mode=served
for command in import create; do
    $command "is marked as corrupt" bits2.qcow2
    $command "was not closed" open.vhd
done
ok tarn image export tank/served-on-bits2.qcow2 back.raw --force
cmp disk.raw back.raw

echo "flaws: passed"
