#!/bin/bash
# Images: recognised, imported sparse and whole or not at all, exported sparse.
set -eu
. "$(dirname "$0")/cli_common.sh"

ok tarn pool create tank d0 d1 --file-size 256M
serve tank

# data at both ends, a hole and written zeroes between, and an odd length
truncate -s 40M disk.raw
dd if=/dev/urandom of=disk.raw bs=64K count=20 conv=notrunc status=none
dd if=/dev/zero of=disk.raw bs=1M seek=10 count=10 conv=notrunc status=none
dd if=/dev/urandom of=disk.raw bs=4K seek=5000 count=3 conv=notrunc status=none
printf end >>disk.raw

ok tarn image info --json disk.raw
same "$(json "['format']")" raw
same "$(json "['guessed']")" True
same "$(json "['virtual_size']")" $(((40 << 20) + 3))
ok tarn image info disk.raw
grep -q 'guess' <<<"$out" || die "info does not say that it guesses"

ok tarn image import disk.raw tank/web
ok tarn volume show --json tank/web
same "$(json "['size']")" $(((40 << 20) + 512)) "rounded up to 512"
[ "$(json "['referenced']")" -lt $((2 << 20)) ] || die "zeroes take space: $(json "['referenced']")"
ok tarn image export tank/web back.raw
cmp -n $(((40 << 20) + 3)) disk.raw back.raw || die "the image came back changed"
same "$(stat -c %s back.raw)" $(((40 << 20) + 512))
[ "$(du -k back.raw | cut -f1)" -lt 4096 ] || die "the export is not sparse"

ok tarn image import disk.raw tank/large --size 1G
ok tarn volume show --json tank/large
same "$(json "['size']")" $((1 << 30))
fails 1 "exists|already" tarn image import disk.raw tank/web
fails 1 "does not fit" tarn image import disk.raw tank/x --size 1M
fails 1 "41943552 bytes.* does not fit into .*41943040 bytes" tarn image import disk.raw tank/x --size 40M
fails 1 "No such file" tarn image import none.raw tank/x
: >empty.raw
fails 1 "is empty" tarn image import empty.raw tank/x
fails 1 "neither" tarn image import . tank/x
mkfifo pipe
fails 1 "neither" tarn image import pipe tank/x
fails 1 "no pool 'nix'" tarn image import disk.raw nix/x
fails 1 . tarn image import disk.raw tank/web@snap
fails 1 "POOL/VOLUME" tarn image import disk.raw web

# formats that are recognised are not taken for raw
head -c 4096 /dev/zero >zero
{ printf 'QFI\373'; cat zero; } >a.qcow2
{ printf 'KDMV'; cat zero; } >a.vmdk
{ head -c 64 zero; printf '\177\020\332\276'; cat zero; } >a.vdi
{ printf 'vhdxfile'; cat zero; } >a.vhdx
{ cat zero; printf 'conectix'; head -c 504 zero; } >a.vhd
for format in qcow2 vmdk vdi vhdx vhd; do
    fails 1 "a\\.$format'" tarn image import "a.$format" tank/x
    fails 1 "'a\\.$format'|$format .*not built" tarn image import "a.$format" tank/x --format "$format"
done
fails 1 "'disk.raw'|reading qcow2" tarn image import disk.raw tank/x --format qcow2
fails 1 "no image format 'zip'" tarn image import disk.raw tank/x --format zip
fails 1 "no image format 'compressed'" tarn image import disk.raw tank/x --format compressed
gzip -k disk.raw
fails 1 "compressed" tarn image import disk.raw.gz tank/x
# nor what others call an image, and what would be nonsense as a raw disk
for magic in 'WithoutFreeSpace' 'WithouFreSpacExt' 'Bochs Virtual HD Image\0' 'QED\0' '#!/bin/sh\n#V2.0 Format\n'; do
    { printf "$magic"; cat zero; } >a.img
    fails 1 "'a.img' is a disk image that is not read here" tarn image import a.img tank/x
done
{ cat zero; printf koly; head -c 508 zero; } >a.dmg
fails 1 "'a.dmg' is a disk image that is not read here" tarn image import a.dmg tank/x
ok tarn image import --format raw a.vhd tank/vhd
ok tarn volume delete --yes tank/vhd

# export refuses what exists, and leaves nothing where it fails
fails 1 "exists|already" tarn image export tank/web back.raw
ok tarn image export --force tank/large back.raw
same "$(stat -c %s back.raw)" $((1 << 30))
chmod 604 back.raw
ln -s back.raw link.raw
ok tarn image export --force tank/web link.raw
same "$(stat -c '%a %s' back.raw)" "604 $(((40 << 20) + 512))" "mode and size of a file that was replaced"
[ -L link.raw ] || die "an export has replaced a link, not what it leads to"
(umask 027 && ok tarn image export tank/web masked.raw)
same "$(stat -c %a masked.raw)" 640 "mode of a new file"
fails 1 "nix" tarn image export tank/nix new.raw
fails 1 "no image format" tarn image export tank/web new.raw --format tar
fails 1 . tarn image export tank/web no/such/folder
[ ! -e new.raw ] || die "a failed export has left a file"
ok tarn snapshot create tank/web@s
ok tarn image export tank/web@s snap.raw
cmp -n $(((40 << 20) + 3)) disk.raw snap.raw

# a volume that a user named as an import names what it fills is not taken for what a killed import left
ok tarn image import a.vhd tank/mine.importing --format raw
fails 1 "tank/mine.importing' is in the way" tarn image import disk.raw tank/mine
grep -q '^hint: .*rename' err || die "there is no hint"
ok tarn image export tank/mine.importing mine.raw
cmp a.vhd mine.raw
ok tarn volume show --json tank/mine.importing
same "$(json "['properties'].get('importing')")" null
ok tarn volume delete --yes tank/mine.importing

# a pool that is full takes the import back
head -c 600M /dev/urandom >huge.raw
fails 1 "full" tarn image import huge.raw tank/huge
grep -q "^hint: .*pool add" err || die "there is no hint"
rm huge.raw
ok tarn volume list --json tank
same "$(json "['volumes'].__len__()")" 2
ok tarn image import disk.raw tank/after
ok tarn image export tank/after after.raw
cmp -n $(((40 << 20) + 3)) disk.raw after.raw

# interrupted: nothing stays. The image is a file system's own pace away from being done; where it is done before
# the signal comes, that is fine too.
head -c 100M /dev/urandom >slow.raw
"$TARN" image import slow.raw tank/slow >/dev/null 2>"$work/err" &
pid=$!
for _ in $(seq 200); do
    ok tarn volume list --json tank
    ! grep -q 'slow' <<<"$out" || break
    kill -0 "$pid" 2>/dev/null || break
    [ "$MODE" = served ] || break
    sleep 0.05
done
kill -INT "$pid" 2>/dev/null || true
got=0
wait "$pid" || got=$?
ok tarn volume list --json tank
if [ "$got" = 0 ]; then
    grep -q '"tank/slow"' <<<"$out" || die "the import succeeded, and the volume is not there"
else
    ! grep -q 'slow' <<<"$out" || die "an interrupted import has left its volume"
fi

# killed: whatever stays has another name, and the next import takes it away. A server may still be busy undoing.
ok tarn volume list --json tank
! grep -q '"tank/slow"' <<<"$out" || ok tarn volume delete --yes tank/slow
"$TARN" image import slow.raw tank/slow >/dev/null 2>&1 &
pid=$!
for _ in $(seq 200); do
    [ "$MODE" = served ] || break
    ok tarn volume list --json tank
    ! grep -q 'slow' <<<"$out" || break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.05
done
kill -KILL "$pid" 2>/dev/null || true
wait "$pid" 2>/dev/null || true
ok tarn volume list --json tank
if ! grep -q '"tank/slow"' <<<"$out"; then
    for _ in $(seq 600); do
        ! tarn image import slow.raw tank/slow >/dev/null 2>err || break
        grep -q 'under way' err || die "the import after a killed one failed: $(cat err)"
        sleep 0.1
    done
fi
ok tarn volume list --json tank
! grep -q 'importing' <<<"$out" || die "a killed import has left something for good"
ok tarn image export tank/slow slow.back
cmp slow.raw slow.back

# an export that is ended before its time leaves the old file as it was, and nothing beside it
exporting() { # FILE [OPTION]: an export is under way
    "$TARN" image export tank/slow "exported/$1" "${@:2}" >/dev/null 2>"$work/err" &
    pid=$!
    for _ in $(seq 2000); do
        # shellcheck disable=SC2010
        ! ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "$work/exported" || break
        kill -0 "$pid" 2>/dev/null || break
    done
}
mkdir exported

# what is written to it meanwhile, by whoever begins to, is not in the file: nor is anything left in the pool
if [ "$MODE" = served ]; then
    exporting written.raw
    # a server that is killed now leaves no snapshot behind: the name of the export's is gone once it is open
    for _ in $(seq 200); do
        ok tarn snapshot list tank
        grep -q export- <<<"$out" || break
        sleep 0.05
    done
    ! grep -q export- <<<"$out" || die "an export's snapshot has a name: $out"
    $python - "nbd+unix:///slow?socket=$work/run/tank.nbd" <<'END' || die "writing over NBD"
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
last = h.get_size() - 4096
was = h.pread(4096, last)
h.pwrite(b"\x55" * 4096, last)
h.flush()
h.pwrite(was, last)
h.shutdown()
END
    wait "$pid" || die "an export fails when its volume is written to: $(cat err)"
    cmp slow.raw exported/written.raw
    ok tarn snapshot list tank
    ! grep -q export- <<<"$out" || die "an export has left its snapshot: $out"
    rm exported/written.raw
fi
for signal in INT TERM KILL; do
    echo old >exported/kept.raw
    exporting kept.raw --force
    kill "-$signal" "$pid" 2>/dev/null || true
    got=0
    wait "$pid" 2>/dev/null || got=$?
    if [ "$got" = 0 ]; then
        cmp slow.raw exported/kept.raw
    else
        same "$(head -c 100 exported/kept.raw | tr -d '\0')" old "the file after SIG$signal"
    fi
    # a file system that must name a file keeps that of a killed export
    [ $signal = KILL ] || same "$(ls -A exported)" kept.raw "files after SIG$signal"
done
rm -f exported/*
# what another made meanwhile stays
exporting new.raw
if (set -C && echo mine >exported/new.raw) 2>/dev/null; then
    got=0
    wait "$pid" || got=$?
    same "$got" 1 "status of an export whose name was taken meanwhile"
    grep -q "^tarn: .*exported/new.raw': File exists" err || die "it says '$(cat err)'"
    same "$(ls -A exported && cat exported/new.raw)" $'new.raw\nmine'
else
    wait "$pid"
fi
unserve
ok tarn pool check tank --data

# damage is told with its place, and no half image stays
$python -I -S - <<'P'
block = open("slow.raw", "rb").read(1 << 20)[8192:12288]
for name in ("d0", "d1"):
    with open(name, "r+b") as f:
        data = f.read()
        at = data.find(block)
        while at >= 0: # also where killed imports had it
            f.seek(at)
            f.write(b"damage")
            at = data.find(block, at + 1)
P
serve tank
! tarn image export tank/slow damaged.raw 2>err || die "damaged data was exported"
grep -q "^tarn: .*volume 'tank/slow' in the .* at offset 0: Input/output error" err || die "the place is not told: $(cat err)"
grep -q '^hint: .*pool check --data tank' err || die "there is no hint"
[ ! -e damaged.raw ] || die "half an image stays"
rm -f exported/*
echo old >exported/kept.raw
! tarn image export --force tank/slow exported/kept.raw 2>err || die "damaged data was exported over a file"
same "$(ls -A exported && cat exported/kept.raw)" $'kept.raw\nold' "files after an export that failed"
got=0
tarn pool check tank --data >out || got=$?
same "$got" 1 "status of a check that finds damage"
grep -q "volume 'slow' at offset 8192" out || die "the check does not tell the place: $(cat out)"
ok tarn pool check tank
unserve
echo "image ($MODE): passed"
