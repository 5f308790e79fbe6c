#!/bin/bash
# Disks that must not become members, members that must not be opened: one sentence, and nothing changed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/cli_common.sh"

# Every file with its size, its time of change, and what it takes: which file systems decide when they write it out.
files() {
    find . -path ./state -prune -o -type f ! -name err -exec sync {} +
    find . -path ./state -prune -o -type f ! -name err -printf '%p %s %T@ %b\n' | sort
}
unchanged() { # STATUS PATTERN COMMAND... must fail and leave every file here as it is
    local before
    before=$(files)
    fails "$@"
    same "$(files)" "$before" "files after '$*'"
}

for name in '' . -x a/b 'a b' "$(printf 'n%.0s' $(seq 64))"; do
    unchanged 1 . tarn pool create --file-size 64M -- "$name" new
done
unchanged 1 "no disk or file" tarn pool create tank none
unchanged 1 "--file-size" tarn pool create tank none --file-size x
unchanged 1 "--file-size" tarn pool create tank none --file-size 0
unchanged 1 "at least 64" tarn pool create tank none --file-size 63M
unchanged 1 "cannot make" tarn pool create tank no/folder/none --file-size 64M
unchanged 1 "same disk" tarn pool create tank none none --file-size 64M
truncate -s 63M small
unchanged 1 "too small" tarn pool create tank small
unchanged 1 "too small" tarn pool create tank new1 small new2 --file-size 64M
unchanged 1 "directory" tarn pool create tank .
unchanged 1 "character device" tarn pool create tank /dev/null
truncate -s 64M used
if command -v mkfs.ext4 >/dev/null; then
    mkfs.ext4 -q used
    unchanged 1 "holds data.*ext4" tarn pool create tank used
    unchanged 1 "holds data.*ext4" tarn pool create tank new1 used --file-size 64M
    ok tarn pool create tank used --force
    ok tarn pool destroy --yes tank
fi

ok tarn pool create tank d0 d1 --file-size 128M
ok tarn volume create tank/web 64M
unchanged 1 "member of pool 'tank'" tarn pool create other d1
unchanged 1 "member of pool 'tank'" tarn pool create other new1 d1 --file-size 64M
unchanged 1 "not a member" tarn pool import used
ln -s d0 link
unchanged 1 "same disk" tarn pool import d0 link

# an export is not written over a member, whose pool would be lost, not even with --force
unchanged 1 "d0' exists" tarn image export tank/web d0
unchanged 1 "member of pool 'tank'" tarn image export tank/web d0 --force
unchanged 1 "member of pool 'tank'" tarn image export tank/web link --force
mkdir folder
unchanged 1 "neither a regular file" tarn image export tank/web folder
unchanged 1 "neither a regular file" tarn image export tank/web folder --force

# what a newer tarn wrote, and what is damaged, is still a member: not taken, not overwritten, its pool's name not free
mkdir aside # where nobody searches
cp --sparse=always d0 aside/d0
for change in 'version 2' 'incompatible 4' 'crc 1'; do
    cp --sparse=always aside/d0 d0
    # shellcheck disable=SC2086
    $python -I -S "$here/mend_label.py" d0 $change
    sync d0 # what it takes is settled
    case $change in
    version*) why="format is version 2, this tarn knows version 1" ;;
    incompatible*) why="uses feature 0x4" ;;
    *) why="label fails its checksum" ;;
    esac
    unchanged 1 "d0.*$why" tarn volume list tank
    unchanged 3 "d0.*$why" tarn pool check tank
    unchanged 1 "d0.*$why" tarn serve tank
    unchanged 1 "d0.*$why" tarn pool import d0 d1
    unchanged 1 "d0' is a member of a pool" tarn pool create other d0
    unchanged 1 "d0' is a member of a pool" tarn pool create other new1 d0 --file-size 64M
    unchanged 1 "d0' is a member of a pool.* not overwritten" tarn image export tank/web d0 --force
    mv d1 aside/d1
    unchanged 1 "pool 'tank' exists" tarn pool create tank new1 --file-size 64M
    mv aside/d1 d1
done
cp --sparse=always aside/d0 d0
sync d0

# of two that say they are the same member, one is a copy: which one, is not guessed
cp --sparse=always d1 copy
sync copy
unchanged 1 "d1' and '.*copy' are the same member" tarn pool import d0 d1 copy
rm copy aside/d0
ok tarn pool import d0 d1

# a file that a loop device is made of is in use, which no lock tells
truncate -s 80M beneath
if loop=$(losetup -f --show beneath 2>/dev/null); then
    loops+=("$loop")
    unchanged 1 "in use as '$loop'" tarn pool create other beneath --force
    unchanged 1 "in use as '$loop'" tarn pool add tank beneath --force
    unchanged 1 "in use as '$loop'" tarn image export tank/web beneath --force
    ok tarn pool create other "$loop"
    unchanged 1 "member of pool 'other'" tarn image export tank/web "$loop" --force
    ok tarn pool destroy other --yes
    losetup -d "$loop"
fi

# where a pool is named, and a volume is given
fails 1 "neither a pool nor the path of a member" tarn volume list tank/web
fails 1 "neither a pool nor the path of a member" tarn volume create tank/a/b 1M

# a member that is truncated, or missing, is named
cp --sparse=always d1 aside/d1
truncate -s 100M d1
fails 1 "d1.*cut short" tarn volume list tank
rm d1
truncate -s 128M d1
fails 1 "member 1 .*missing" tarn volume list tank
rm d1
fails 1 "member 1 .*missing" tarn volume list tank
mv aside/d1 d1
ok tarn volume list tank

# a state file that is rubbish is named, and the pool comes back by import
rm state/tank.json
mv d1 aside/d1
fails 1 "cannot import pool 'tank': member 1 .*missing" tarn pool import d0
mv aside/d1 d1
ok tarn pool import d0
echo rubbish >state/tank.json
fails 1 "state/tank.json" tarn volume list tank
fails 1 "state/tank.json" tarn serve d0
ok tarn pool list --json
same "$(json "['pools'][0]['name']")" tank
grep -q 'state/tank.json' <<<"$(json "['pools'][0]['error']")" || die "the list does not tell why: $out"
ok tarn pool list
grep -q '^note: .*state/tank.json' err || die "the list does not tell why"
rm state/tank.json
ok tarn pool import d0
ok tarn volume list tank

# so does one that names no members
$python - <<'END'
import json
with open('state/tank.json') as file:
    state = json.load(file)
with open('state/tank.json', 'w') as file:
    json.dump(dict(state, members=[]), file)
END
fails 1 "the state file of pool 'tank' names no members" tarn volume list tank
grep -q '^hint: .*pool import' err || die "there is no hint"
fails 1 "names no members" tarn serve tank
ok tarn pool import d0
ok tarn volume list tank

# a folder for state that cannot be written
if [ "$(id -u)" != 0 ]; then
    mkdir locked
    chmod 500 locked
    TARN_STATE_DIR=$work/locked/state fails 1 "state folder" tarn pool list
fi
TARN_STATE_DIR=/dev/null/state fails 1 "state folder" tarn pool list
ok tarn pool check tank
echo "refused: passed"
