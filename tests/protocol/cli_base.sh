#!/bin/bash
# Volumes on an image: there at once, read from it, written in the pool, copied in the background over kills of
# the server, and refused where the image is not what it was.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"

ok tarn pool create tank d0 d1 --file-size 512M

# data, a hole, zeroes that were written, and an odd end
head -c 20M /dev/urandom >golden.raw
truncate -s 60M golden.raw
head -c 5M /dev/urandom >>golden.raw
printf end >>golden.raw
size=$(((65 << 20) + 512))
cp golden.raw want.raw
truncate -s $size want.raw

# base POOL/VOLUME FIELD: of volume show
base() {
    ok tarn volume show --json "$1"
    json "['base']['$2']"
}

# exports POOL/VOLUME FILE: it holds what FILE does
exports() {
    rm -f got.raw
    ok tarn image export "$1" got.raw
    cmp got.raw "$2" || die "$1 does not hold what $2 does"
}

wait_complete() { # POOL/VOLUME
    for _ in $(seq 600); do
        [ "$(base "$1" complete)" != True ] || return 0
        sleep 0.05
    done
    die "the image of $1 is not copied: $out"
}

# without a server: each command finds the image again
ok tarn volume create tank/web --base golden.raw
[[ $out == "created volume 'tank/web' of 65.0 MiB on 'golden.raw'" ]] || die "$out"
same "$(base tank/web path)" "$work/golden.raw"
same "$(base tank/web format)" raw
same "$(base tank/web size)" $size
same "$(base tank/web copied)" 0
exports tank/web want.raw
ok tarn volume create tank/large 100M --base golden.raw
ok tarn volume create tank/small 1M --base golden.raw
cp want.raw large.raw && truncate -s 100M large.raw
head -c 1M want.raw >small.raw
exports tank/large large.raw
exports tank/small small.raw
fails 1 "there is no 'none'" tarn volume hydrate tank/none
ok tarn volume create tank/plain 1M
fails 1 "does not stand on an image" tarn volume hydrate tank/plain
fails 1 "No such file" tarn volume create tank/x --base none.raw
fails 2 "needs more arguments" tarn volume create tank/x
: >empty.raw
fails 1 "is empty" tarn volume create tank/x --base empty.raw
fails 1 "exists|has a volume" tarn volume create tank/web --base golden.raw
# a member of a pool changes: of this one, which would stand on itself, or of another that is open
fails 1 "d0' is locked" tarn volume create tank/x --base d0
ln d1 other-name
fails 1 "other-name' is locked" tarn volume create tank/x --base other-name

# over NBD: what is written and discarded is the volume's, the image stays
serve_now tank
uri="nbd+unix:///web?socket=$work/run/tank.nbd"
cp want.raw web.raw
dd if=/dev/urandom of=piece bs=4k count=300 status=none
dd if=piece of=web.raw bs=4k seek=100 conv=notrunc status=none
dd if=/dev/zero of=web.raw bs=4k seek=3000 count=500 conv=notrunc status=none
$python - "$uri" <<'END' || die "writing over NBD"
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
data = open("piece", "rb").read()
h.pwrite(data, 100 * 4096)
h.trim(500 * 4096, 3000 * 4096)
assert h.pread(4096, 3100 * 4096) == bytes(4096)
h.flush()
h.shutdown()
END
exports tank/web web.raw
same "$(sha256sum <golden.raw)" "$(head -c $((size - 509)) want.raw | sha256sum)" "the image"
ok tarn snapshot create tank/web@one
ok tarn volume clone tank/web@one tank/copy
exports tank/copy web.raw
exports tank/web@one web.raw

# copied slowly, killed, and gone on with
ok tarn volume hydrate tank/web --bandwidth 1M
grep -q "is being copied" <<<"$out" || die "$out"
for _ in $(seq 200); do
    [ "$(base tank/web copied)" = 0 ] || break
    sleep 0.05
done
same "$(base tank/web hydrating)" True
kill -KILL "$server"
wait "$server" || true
serve_now tank
same "$(base tank/web hydrating)" True "after a restart"
same "$(base tank/copy hydrating)" True "of the clone, which shares it"
ok tarn volume hydrate tank/web --stop
same "$(base tank/web hydrating)" False
serve_end
serve_now tank
same "$(base tank/web hydrating)" False "after a stop and a restart"
exports tank/web web.raw

# its files are the host's as long as a volume needs them
holds() { # FILE
    # shellcheck disable=SC2010
    ls -l "/proc/$server/fd" | grep -q "/$1\$"
}
holds golden.raw || die "the server has not got the image open"
head -c 3M /dev/urandom >short.raw
ok tarn volume create tank/s1 --base short.raw
ok tarn volume create tank/s2 --base short.raw
ok tarn volume delete tank/s1 --yes
exports tank/s2 short.raw
holds short.raw || die "an image that a volume needs was let go of"
ok tarn volume delete tank/s2 --yes
! holds short.raw || die "an image stays open that no volume needs"

# the only volume on an image is deleted, and the next one made, again and again: at the same time now and then
ok tarn volume create tank/job --base short.raw
for i in $(seq 20); do
    "$TARN" volume delete tank/job --yes >/dev/null 2>job.err &
    pid=$!
    ok tarn volume create tank/next --base short.raw
    wait $pid || die "the volume of a job cannot be deleted: $(cat job.err)"
    exports tank/next short.raw
    ok tarn volume rename tank/next job
done
ok tarn volume delete tank/job --yes

# many are deleted while their images are copied, and others look
for i in 1 2 3 4 5 6; do
    head -c 8M /dev/urandom >r$i.raw
    ok tarn volume create tank/r$i --base r$i.raw
    ok tarn volume hydrate tank/r$i --bandwidth 1M
done
pids=() may_fail=()
for i in 1 2 3 4 5 6; do
    "$TARN" volume hydrate tank/r$i >/dev/null 2>&1 &
    may_fail+=($!)
    "$TARN" volume delete tank/r$i --yes >/dev/null 2>r$i.err &
    pids+=($!)
    "$TARN" volume list tank >/dev/null 2>r$i.list &
    pids+=($!)
done
for pid in "${pids[@]}"; do
    wait "$pid" || die "of several at once one failed: $(cat r?.err r?.list)"
done
wait "${may_fail[@]}" || true

# over a takeover
ok tarn volume hydrate tank/web --bandwidth 1M
old=$server
serve_now tank --takeover
wait "$old" || die "the old server failed"
same "$(base tank/web hydrating)" True "after a takeover"
exports tank/web web.raw

# to the end: the image is not needed any more
ok tarn volume hydrate tank/web
wait_complete tank/web
! holds golden.raw || die "an image stays open that is in the pool"
mv golden.raw elsewhere.raw
exports tank/web web.raw
exports tank/large large.raw
serve_end
exports tank/small small.raw
exports tank/copy web.raw
ok tarn volume show tank/web
grep -q "image is not needed" <<<"$out" || die "$out"
ok tarn volume hydrate tank/web
grep -q "not needed any more" <<<"$out" || die "$out"
ok tarn pool check --data tank

# an image that is changed, or gone, is an error to who needs it, and no content
cp elsewhere.raw second.raw
ok tarn volume create tank/second --base second.raw
exports tank/second want.raw
touch -d 2001-01-01 second.raw
serve_now tank
fails 1 "second.raw.* was changed" tarn image export tank/second got2.raw
[ ! -e got2.raw ] || die "half an export is there"
! nbdinfo --size "nbd+unix:///second?socket=$work/run/tank.nbd" 2>err2 || die "a changed image is served"
ok tarn volume show tank/second
grep -q "was changed" <<<"$out" || die "$out"
exports tank/web web.raw
serve_end
rm second.raw
serve_now tank
fails 1 "second.raw" tarn image export tank/second got2.raw
fails 1 "second.raw" tarn volume hydrate tank/second
ok tarn volume delete --yes tank/second

# others are its first bytes alone: it is as long as it was, and as old
head -c 1M elsewhere.raw >head.raw
ok tarn volume create tank/head --base head.raw
cp -p head.raw head.kept
serve_end
printf 'another header' | dd of=head.raw seek=1000 bs=1 conv=notrunc status=none
touch -r head.kept head.raw
same "$(stat -c '%s %y' head.raw)" "$(stat -c '%s %y' head.kept)" "size and time"
serve_now tank
fails 1 "head.raw.* was changed" tarn image export tank/head got2.raw
serve_end
cp -p head.kept head.raw
serve_now tank
exports tank/head head.kept
ok tarn volume delete --yes tank/head

# copied, and not found again: to say where it is may fail, and changes nothing then
cp elsewhere.raw lost.raw
ok tarn volume create tank/lost --base lost.raw
ok tarn volume hydrate tank/lost --bandwidth 1M
serve_end
rm lost.raw
serve_now tank
head -c 2M /dev/urandom >wrong.raw
fails 1 "wrong.raw' has .* bytes, and the image had" tarn volume rebase tank/lost wrong.raw
same "$(base tank/lost hydrating)" False
fails 1 "lost.raw" tarn image export tank/lost got2.raw
cp elsewhere.raw found.raw
ok tarn volume rebase tank/lost found.raw
same "$(base tank/lost hydrating)" True
exports tank/lost want.raw
ok tarn volume delete --yes tank/lost

# a block device: its node is made anew at each boot, and another disk may be called as it was
head -c 65M want.raw >disk.raw
cp disk.raw want-disk.raw
if loop=$(losetup --find --show disk.raw 2>/dev/null); then
    loops+=("$loop")
    ok tarn volume create tank/device --base "$loop"
    serve_end
    touch -d 2001-01-01 "$loop"
    serve_now tank
    exports tank/device want-disk.raw
    serve_end
    printf x | dd of="$loop" bs=1 seek=$(((65 << 20) - 200)) conv=notrunc status=none
    serve_now tank
    fails 1 "$loop.* was changed" tarn image export tank/device got2.raw
    ok tarn volume delete --yes tank/device
fi

# changed while it is served: reading ends there and then
cp elsewhere.raw third.raw
ok tarn volume create tank/third --base third.raw
exports tank/third want.raw
printf x | dd of=third.raw conv=notrunc status=none
fails 1 "third.raw' was changed" tarn image export tank/third got2.raw
ok tarn volume show tank/third
grep -q "was changed while" <<<"$out" || die "$out"
ok tarn volume delete --yes tank/third

# emptied while it is served: what are holes by now were data, and are not taken over as zeroes
cp elsewhere.raw third.raw
ok tarn volume create tank/third --base third.raw
cp -p third.raw third.kept
truncate -s 0 third.raw
truncate -s "$(stat -c %s elsewhere.raw)" third.raw
ok tarn volume hydrate tank/third
for _ in $(seq 200); do
    ok tarn volume show tank/third
    ! grep -q "was changed while" <<<"$out" || break
    sleep 0.05
done
grep -q "was changed while" <<<"$out" || die "$out"
same "$(base tank/third complete)" False
fails 1 "third.raw' was changed" tarn image export tank/third got2.raw
cp -p third.kept third.raw
exports tank/third want.raw
ok tarn volume delete --yes tank/third

# all at once, and all gone
ok tarn volume create tank/fourth --base elsewhere.raw --hydrate
wait_complete tank/fourth
for volume in web large small copy plain fourth; do
    ok tarn volume delete --yes --snapshots tank/$volume
done
serve_end
ok tarn pool status --json tank
same "$(json "['used']")" 0
ok tarn pool check tank

# the command alone copies, and says how it went
ok tarn volume create tank/alone --base elsewhere.raw
ok tarn volume hydrate tank/alone
grep -q "all of volume 'tank/alone' is in the pool" <<<"$out" || die "$out"
rm elsewhere.raw
exports tank/alone want.raw
ok tarn volume delete --yes tank/alone

# an image that needs another one: both are found again, and both have to be what they were
mkdir folder
head -c 3M /dev/urandom >folder/below.raw
qemu-img create -q -f qcow2 -b below.raw -F raw folder/top.qcow2
qemu-io -c 'write -P 7 1M 512k' folder/top.qcow2 >/dev/null
qemu-img convert -O raw folder/top.qcow2 chain.raw
serve_now tank
ok tarn volume create tank/chain --base folder/top.qcow2
same "$(base tank/chain format)" qcow2
exports tank/chain chain.raw
serve_end
serve_now tank
exports tank/chain chain.raw

# the lower one is changed while the upper one is served
cp -p folder/below.raw below.kept
printf x | dd of=folder/below.raw conv=notrunc status=none
fails 1 "below.raw' was changed" tarn image export tank/chain got2.raw
cp -p below.kept folder/below.raw
exports tank/chain chain.raw
serve_end
touch -d 2001-01-01 folder/below.raw
fails 1 "top.qcow2.* was changed" tarn image export tank/chain got2.raw
ok tarn volume delete --yes tank/chain
mv folder/below.raw .
ln -s ../below.raw folder/below.raw
fails 1 "below.raw" tarn volume create tank/chain --base folder/top.qcow2
ok tarn volume create tank/chain --base folder/top.qcow2 --allow below.raw --hydrate
exports tank/chain chain.raw

# a pool that is nearly full: what is left is for its volumes, and copying goes on when there is more
ok tarn pool create little e0 --file-size 128M
head -c 80M /dev/urandom >big.raw
head -c 50M /dev/urandom >guest.raw
ok tarn volume create little/big --base big.raw
ok tarn image import guest.raw little/guest
serve_now little
ok tarn volume hydrate little/big
for _ in $(seq 600); do
    ok tarn volume show little/big
    ! grep -q "no space for more of image .*big.raw" <<<"$out" || break
    sleep 0.05
done
grep -q "no space for more of image .*big.raw" <<<"$out" || die "$out"
ok tarn pool status --json little
[ "$(json "['free']")" -ge $((2 << 20)) ] || die "nothing is left to the volumes: $out"
exports little/big big.raw
ok tarn volume delete --yes little/guest
ok tarn volume hydrate little/big
wait_complete little/big
rm big.raw
serve_end
same "$(base little/big complete)" True
ok tarn pool check --data little
