#!/bin/bash
# backup.sh - incremental backup with tools that exist: a full copy of one snapshot by nbdcopy, and of the next
# only what changed in between, told by the context qemu:dirty-bitmap:SNAP: by nbdinfo and a script of libnbd, and
# by QEMU. What is put together must be what the volume held.
set -eu
. "$(dirname "$0")/cli_common.sh"

for tool in nbdinfo nbdcopy qemu-img qemu-io; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
$python -c 'import nbd' 2>/dev/null || skip "python3 has no module nbd"

ok tarn pool create p a.disk b.disk --file-size 256M
ok tarn volume create p/vol 100M
serve_now p --nbd "unix:$work/nbd.sock"
uri() { # EXPORT
    echo "nbd+unix:///$1?socket=$work/nbd.sock"
}

# The guest's work: writes of any offset and length from a seed, some of them zeroes and discards.
work_on() { # SEED
    $python - "$(uri p/vol)" "$1" <<'PYTHON'
import nbd, random, sys
uri, seed = sys.argv[1], int(sys.argv[2])
rnd = random.Random(seed)
h = nbd.NBD()
h.connect_uri(uri)
for _ in range(60):
    offset = rnd.randrange(h.get_size())
    length = min(rnd.randrange(1, 200000), h.get_size() - offset)
    what = rnd.randrange(5)
    if what == 0:
        h.zero(length, offset)
    elif what == 1:
        h.trim(length, offset)
    else:
        h.pwrite(rnd.randbytes(length), offset)
h.flush()
h.shutdown()
PYTHON
}

work_on 1
ok tarn snapshot create p/vol@monday
ok nbdcopy "$(uri p/vol@monday)" monday.raw
work_on 2
ok tarn snapshot create p/vol@tuesday
work_on 3 # goes on, and is not in the backup

# ---- what changed ----

ok nbdinfo --map=qemu:dirty-bitmap:monday "$(uri p/vol@tuesday)"
changed=$(awk '$3 == 1 { sum += $2 } END { print sum }' <<<"$out")
covered=$(awk '{ sum += $2 } END { print sum }' <<<"$out")
same "$covered" 104857600 "the map covers the volume"
[ "$changed" -gt 1000000 ] && [ "$changed" -lt 20000000 ] || die "$changed bytes are said to have changed"
grep -q dirty <<<"$out" || die "nbdinfo does not know the context: $out"
ok nbdinfo --map=qemu:dirty-bitmap:tuesday "$(uri p/vol@tuesday)"
same "$(awk '{ print $1, $2, $3 }' <<<"$out")" "0 104857600 0" "nothing changed since itself"
ok nbdinfo --map=qemu:allocation-depth "$(uri p/vol)"
same "$(awk '{ print $3 }' <<<"$out" | sort -u | xargs)" "0 1 2 3" "depths"

# ---- only that is copied, by a script of libnbd ----

cp monday.raw script.raw
ok $python - "$(uri p/vol@tuesday)" script.raw <<'PYTHON'
import nbd, sys
uri, path = sys.argv[1:]
context = "qemu:dirty-bitmap:monday"
h = nbd.NBD()
h.add_meta_context(context)
h.connect_uri(uri)
assert h.can_meta_context(context)
changed, at = [], 0

def extents(name, offset, entries, error):
    global at
    for length, flags in zip(entries[::2], entries[1::2]):
        if flags & 1:
            changed.append((at, length))
        at += length

while at < h.get_size():
    h.block_status(h.get_size() - at, at, extents)
with open(path, "r+b") as copy:
    for offset, length in changed:
        for part in range(offset, offset + length, 1 << 20):
            copy.seek(part)
            copy.write(h.pread(min(1 << 20, offset + length - part), part))
print(sum(length for _, length in changed))
h.shutdown()
PYTHON
same "$out" "$changed" "bytes copied by the script"
ok nbdcopy "$(uri p/vol@tuesday)" tuesday.raw
cmp script.raw tuesday.raw || die "the script's copy differs"
! cmp -s monday.raw tuesday.raw || die "nothing was tested"

# ---- the same by QEMU ----

# x-dirty-bitmap puts the context in the place of base:allocation: what is dirty is "no data" to QEMU.
options="driver=nbd,export=p/vol@tuesday,server.type=unix,server.path=$work/nbd.sock"
ok qemu-img map --output=json --image-opts "$options,x-dirty-bitmap=qemu:dirty-bitmap:monday"
ranges=$(printf '%s' "$out" | $python -c '
import json, sys
for e in json.load(sys.stdin):
    if not e["data"]:
        print(e["start"], e["length"])')
same "$(awk '{ sum += $2 } END { print sum }' <<<"$ranges")" "$changed" "bytes dirty to QEMU"
# A file over the export takes what is read of it; then its base is the copy of before.
ok qemu-img create -q -f qcow2 -F raw -b "$(uri p/vol@tuesday)" tuesday.qcow2
commands=()
while read -r start length; do
    commands+=(-c "read -q $start $length")
done <<<"$ranges"
ok qemu-io -C "${commands[@]}" -f qcow2 tuesday.qcow2
ok qemu-img rebase -u -f qcow2 -F raw -b monday.raw tuesday.qcow2
ok qemu-img compare -f qcow2 -F raw tuesday.qcow2 tuesday.raw
[ "$(stat -c %s tuesday.qcow2)" -lt 40000000 ] || die "the increment is no smaller than the whole"

# ---- a backup under way holds its snapshot ----

ok $python - "$(uri p/vol)" "$TARN" <<'PYTHON'
import nbd, subprocess, sys
uri, tarn = sys.argv[1:]
h = nbd.NBD()
h.add_meta_context("qemu:dirty-bitmap:monday")
h.connect_uri(uri)
def dirty():
    sums, at = [0, 0], 0
    def extents(name, offset, entries, error):
        for length, flags in zip(entries[::2], entries[1::2]):
            sums[flags & 1] += length
    while sum(sums) < h.get_size():
        h.block_status(h.get_size() - sum(sums), sum(sums), extents)
    return sums[1]
before = dirty()
subprocess.run([tarn, "snapshot", "delete", "p/vol@monday", "--yes"], check=True, stdin=subprocess.DEVNULL, timeout=60)
assert dirty() == before
h.shutdown()
PYTHON
ok nbdinfo --list --json "$(uri '')"
! grep -q monday <<<"$out" || die "the deleted snapshot is listed"
ok tarn pool check p --data
serve_end
ok tarn pool check p --data

# ---- restored ----

ok qemu-img convert -O raw tuesday.qcow2 increment.raw
ok tarn image import increment.raw p/restored
ok tarn image export p/restored restored.raw --format raw
cmp restored.raw tuesday.raw || die "what was restored differs"
