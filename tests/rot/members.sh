#!/bin/bash
# members.sh - bytes flipped in the files of a pool that `tarn` has made: `pool check --data` names the place, and
# clients get EIO or what was written, never anything else. members.sh [BYTES [SEED]]
set -eu
. "$(dirname "$0")/../protocol/cli_common.sh"
bytes=${1:-24} seed=${2:-1}
$python -c 'import nbd' 2>/dev/null || skip "no Python module of libnbd"
command -v qemu-io >/dev/null || skip "no qemu-io"

ok tarn pool create tank a.disk b.disk --file-size 64M
head -c 2M /dev/urandom >image
ok tarn image import image tank/web
ok tarn snapshot create tank/web@first
head -c 512K /dev/urandom >more
dd if=more of=image conv=notrunc bs=4K seek=100 status=none
serve_now tank
ok nbdcopy image "nbd+unix:///tank/web?socket=$work/run/tank.nbd"
serve_end
ok tarn pool check tank --data

# Where something is on the files: a byte of each of so many blocks by lot, of all of which data are most.
cat >places.py <<'PY'
import os, random, sys
count, seed = int(sys.argv[1]), int(sys.argv[2])
places = []
for name in ("a.disk", "b.disk"):
    with open(name, "rb") as f:
        size = os.stat(name).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            f.seek(at)
            if any(f.read(4096)):
                places.append((name, at // 4096))
            at = at // 4096 * 4096 + 4096
random.seed(seed)
for name, block in random.sample(places, min(count, len(places))):
    print(name, block * 4096 + random.randrange(4096))
PY
flip() { # FILE OFFSET
    $python -c '
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([byte ^ 0x10]))' "$1" "$2"
}
cat >read.py <<'PY'
"""Every block is what was written, or EIO: prints where it is that."""
import errno, nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
with open(sys.argv[2], "rb") as f:
    for at in range(0, h.get_size(), 4096):
        expected = f.read(4096)
        try:
            assert h.pread(4096, at) == expected, f"other data at {at}"
        except nbd.Error as error:
            assert error.errnum == errno.EIO, error
            print(at)
h.shutdown()
PY
named=0 lost=0 silent=0
while read -r file offset; do
    block=$((offset / 4096 * 4096))
    cp --sparse=always a.disk a.sound
    cp --sparse=always b.disk b.sound
    flip "$file" "$offset"
    got=0
    tarn pool check tank --data >check.out 2>&1 || got=$?
    if [ $got = 0 ]; then
        silent=$((silent + 1)) # nothing counts there: superblocks and copies that were replaced, freed blocks
    else
        grep -q "$file' at byte" check.out || die "byte $offset of $file: the check says $(cat check.out)"
        named=$((named + 1))
    fi
    serve_now tank
    uri="nbd+unix:///tank/web?socket=$work/run/tank.nbd"
    timeout 100 $python read.py "$uri" image >unreadable || die "byte $offset of $file: a client reads other data"
    if [ -s unreadable ]; then
        lost=$((lost + 1))
        [ $got = 1 ] || die "byte $offset of $file costs a block, and the check found nothing"
        out=$(timeout 60 qemu-io -r -f raw -c "read $(head -1 unreadable) 4k" "$uri" 2>&1) || true
        grep -q "Input/output error" <<<"$out" || die "byte $offset of $file: qemu-io says $out"
        ! timeout 60 nbdcopy "$uri" copy 2>/dev/null || die "byte $offset of $file: nbdcopy copies what cannot be read"
        grep -q "$file' at byte $block" serve.tank.log || die "byte $offset of $file: the log does not name it"
    fi
    serve_end
    mv a.sound a.disk
    mv b.sound b.disk
done < <($python places.py "$bytes" "$seed")
ok tarn pool check tank --data
[ $named -gt 0 ] && [ $lost -gt 0 ] || die "of $bytes bytes the check named $named, and $lost cost a block"
echo "$bytes bytes flipped: $named named by the check, $lost cost a block (EIO), $silent where nothing counts"
