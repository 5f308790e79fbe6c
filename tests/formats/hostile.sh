#!/bin/bash
# What a hostile user can do with files alone: images that name others' files, disks whose guest has made them look
# like images, names that a terminal would obey, files that are none. Kinds of attack that have a number are listed in
# the README.
set -eu
. "$(dirname "$0")/common.sh"

disk disk.raw small
mkdir images outside new
secret=$work/outside/secret
ok tarn pool create tank d0 --file-size 128M

# never_taken FILE PATTERN: FILE names the secret, and no verb that reads content reads that.
never_taken() {
    if [ "$mode" = direct ]; then
        ok tarn image info "$1"
        fails 1 "$2" tarn image convert "$1" new/x.raw
        fails 1 "$2" tarn image map "$1"
    fi
    fails 1 "$2" tarn image import "$1" tank/x
    fails 1 "$2" tarn volume create tank/x --base "$1"
}

# flat_vmdk NAME: a disk that is one file's content.
flat_vmdk() {
    printf '# Disk DescriptorFile\nCID=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "%s" 0\n' "$1" >images/flat.vmdk
}

# As parts (CVE-2022-47951 is of this kind), external data files (CVE-2024-32498), backing files (CVE-2015-5163), and the
# parent of a VMDK.
ok qemu-img create -q -f qcow2 -o "data_file=$secret,data_file_raw=on" images/data.qcow2 1M
ok qemu-img create -q -f qcow2 -u -b "$secret" -F raw images/backing.qcow2 1M
printf '# Disk DescriptorFile\nCID=1\nparentCID=2\nparentFileNameHint="%s"\nRW 8 ZERO\n' "$secret" >images/child.vmdk
echo "the key of the house" >"$secret"
truncate -s 1M "$secret"
ln -s ../outside/secret images/link
mkfifo images/pipe
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    for name in "$secret" ../outside/secret ./../outside/../outside/secret link "/proc/self/root$secret"; do
        flat_vmdk "$name"
        never_taken images/flat.vmdk "lies outside of its folder"
    done
    for name in "json:{'driver':'raw','file':'$secret'}" "file:$secret" "nbd:unix:$secret"; do
        flat_vmdk "$name"
        never_taken images/flat.vmdk "a protocol's address"
    done
    flat_vmdk /dev/zero
    never_taken images/flat.vmdk "lies outside of its folder"
    flat_vmdk pipe
    never_taken images/flat.vmdk "neither a regular file nor a block device"
    for file in data.qcow2 backing.qcow2 child.vmdk; do
        never_taken "images/$file" "lies outside of its folder"
    done
    [ $mode = direct ] || serve_end
done
grep -q "key of the house" "$secret" || die "what an image names was written to"
flat_vmdk "$secret"
ok tarn image convert images/flat.vmdk new/x.raw --allow outside # for who means it
grep -q "key of the house" new/x.raw || die "what is allowed is not read"
rm new/x.raw

# a guest makes its raw disk an image (CVE-2008-2004): who says raw gets what it wrote, and a backing file's format is
# never looked for
ok qemu-img create -q -f qcow2 -u -b "$secret" -F raw guest.raw 1M
truncate -s 1M guest.raw
ok tarn image convert guest.raw new/x.raw --from-format raw
cmp guest.raw new/x.raw
ok tarn image import guest.raw tank/guest --format raw
ok tarn image export tank/guest new/x.raw --force
cmp guest.raw new/x.raw
ok tarn volume create tank/over --base guest.raw --format raw
ok tarn image export tank/over new/x.raw --force
cmp guest.raw new/x.raw
mv guest.raw images/
ok qemu-img create -q -f qcow2 -u -b guest.raw -F raw images/stated.qcow2 1M
ok tarn image convert images/stated.qcow2 new/x.raw --force
cmp images/guest.raw new/x.raw
ok qemu-img create -q -f qcow2 -u -b guest.raw -F qcow2 images/unstated.qcow2 1M
sed -i 's/\xe2\x79\x2a\xca/\x01\x79\x2a\xca/' images/unstated.qcow2 # the header extension that has the format
fails 1 "images/unstated.qcow2" tarn image convert images/unstated.qcow2 new/y.raw
[ ! -e new/y.raw ] || die "a failure has left a file"

# nothing_obeyed TEXT: no control character is in it but ends of lines, neither as a byte nor as U+0080 to U+009F
nothing_obeyed() {
    $python -I -S -c 'import sys
bad = [hex(ord(c)) for c in sys.argv[1] if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160)]
sys.exit(f"a terminal would obey {bad}" if bad else 0)' "$1" || die "$1"
}

# what files are called, and what they say
evil=$'\e]0;owned\a\u009b31m\nfile  x'
cp disk.raw "$evil"
for verb in info map; do
    ok tarn image "$verb" "$evil"
    nothing_obeyed "$out"
done
ok tarn image info "$evil"
same "$(grep -c '^file  ' <<<"$out")" 1 "a name that has a line's end makes lines of its own"
ok tarn image convert "$evil" "new/$evil" --format qcow2
nothing_obeyed "$out"
same "$(wc -l <<<"$out")" 1
nothing_obeyed "$(cat err)"
ok tarn image check "new/$evil"
nothing_obeyed "$out"
ok tarn image import "$evil" tank/evil --format raw
nothing_obeyed "$out"
ok tarn volume create tank/evilbase --base "$evil" --format raw
ok tarn volume show tank/evilbase
nothing_obeyed "$out"
fails 1 "without extents" tarn image convert "new/$evil" x.raw --from-format vmdk
nothing_obeyed "$(cat err)"
cp disk.raw "images/$evil"
ok qemu-img create -q -f qcow2 -b "images/$evil" -F raw says.qcow2 1M
ok qemu-img snapshot -c $'s\e[2J' says.qcow2
rm "images/$evil"
ok tarn image info says.qcow2
nothing_obeyed "$out"
grep -qF 'backing file  images/\x1b]0;owned\x07\xc2\x9b31m\x0afile  x (raw)' <<<"$out" || die "$out"
fails 1 . tarn image convert says.qcow2 new/y.raw
nothing_obeyed "$(cat err)"
printf '# Disk DescriptorFile\nCID=1\ncreateType="\e[2J\x9b1m"\nRW 8 ZERO\n' >says.vmdk
ok tarn image info says.vmdk
nothing_obeyed "$out"

# files that are none
ln -s loop loop
mkdir folder
$python -I -S -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
: >empty
for file in /dev/zero /dev/null folder images/pipe socket loop none; do
    fails 1 . tarn image info "$file"
    fails 1 . tarn image map "$file"
    fails 3 . tarn image check "$file"
    fails 1 . tarn image convert "$file" new/y.raw
    fails 1 . tarn image import "$file" tank/y
done
for file in /proc/self/mem empty; do # as files they have no bytes
    fails 1 "is empty" tarn image import "$file" tank/y
done
[ ! -e new/y.raw ] || die "a failure has left a file"

# a file of nothing but holes whose map has a thousand million extents: each is told as it is found
$python -I -S - <<'END'
import struct
n = 0x3fff0000
head = b"<<< hostile >>>".ljust(64, b"\0") + struct.pack("<IHH", 0xbeda107f, 1, 1)
head += struct.pack("<3I", 400, 1, 0) + bytes(256) + struct.pack("<2I", 512, 0xfffffe00) + bytes(20)
head += struct.pack("<Q4I", n << 20, 1 << 20, 0, n, 0) + b"1" * 32 + bytes(48)
with open("holes.vdi", "wb") as f:
    f.write(head)
    f.truncate(8 << 40)
END
# first_lines N COMMAND...: and who writes them ends when nobody reads on.
first_lines() {
    local n=$1
    shift
    { "$@" 2>err && touch ended; } | head -n "$n" >out
    [ -e ended ] && [ ! -s err ] || die "'$*' did not end well: $(cat err)"
    rm ended
}
first_lines 3 tarn image map holes.vdi
same "$(awk 'NR == 3 {print $1, $2, $3}' out)" "1048576 1048576 data"
first_lines 2 tarn image map --json holes.vdi
same "$(awk -F'"' 'NR == 2 {print $3}' out)" ": 1048576, "

# and a check that finds nearly all of them wrong ends when it is told to
"$TARN" image check holes.vdi >out 2>err &
pid=$!
for _ in $(seq 200); do # until SIGTERM is waited for
    [ $((0x$(awk '$1 == "SigBlk:" {print $2}' /proc/$pid/status) >> 14 & 1)) = 0 ] || break
    sleep 0.05
done
kill -TERM $pid
(sleep 20 && kill -KILL $pid) >/dev/null 2>&1 & # a hang is a failure
dog=$!
got=0
wait $pid || got=$?
kill $dog 2>/dev/null || true
same "$got $(cat err)" "3 tarn: interrupted"

# NBD servers that lie (CVE-2017-2630): a sentence each, and no waiting
for lie in $($python -I -S "$here/nbd_lies.py" --list); do
    rm -f lie.sock
    $python -I -S "$here/nbd_lies.py" lie.sock "$lie" >lie.log 2>&1 &
    server_pids+=($!)
    for _ in $(seq 200); do
        [ ! -S lie.sock ] || break
        sleep 0.05
    done
    fails 1 "lie.sock" tarn image convert "nbd+unix:///?socket=$work/lie.sock" new/y.raw
    [ ! -e new/y.raw ] || die "$lie: a failure has left a file"
    kill "${server_pids[-1]}" 2>/dev/null || true
done
echo "hostile: passed"
