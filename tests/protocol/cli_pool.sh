#!/bin/bash
# Pools: made, listed, shown, extended, checked, moved, forgotten, imported, destroyed.
set -eu
. "$(dirname "$0")/cli_common.sh"

mkdir a b
ok tarn pool list --json
same "$(json "['pools']")" "[]"

# create makes files where there is nothing, sparse
ok tarn pool create tank a/d0 a/d1 a/d2 --file-size 256M
same "$(stat -c %s a/d1)" $((256 << 20))
[ "$(du -sk a | cut -f1)" -lt $((400 << 10)) ] || die "the members are not sparse"

serve tank
ok tarn pool list
grep -q '^tank ' <<<"$out" || die "tank is not listed"
ok tarn pool list --json
same "$(json "['pools'][0]['name']")" tank
same "$(json "['pools'][0]['state']")" "$([ "$MODE" = served ] && echo served || echo idle)"

# status tells sizes, members and counters; by name, and by the path of any member
ok tarn pool status tank
grep -q '^provisioned ' <<<"$out" || die "status does not tell what is provisioned"
grep -q "$work/a/d2" <<<"$out" || die "status does not name the members"
for name in tank a/d2 "$work/a/d0"; do
    ok tarn pool status --json "$name"
    same "$(json "['name']")" tank
    same "$(json "['layout']")" stripe
    same "$(json "['members'].__len__()")" 3
    same "$(json "['members'][0].keys() >= set('reads writes flushes discards read_bytes write_bytes'.split())")" True
done
size=$(json "['size']")
ok tarn pool status --json
same "$(json "['pools'][0]['name']")" tank

# what is provisioned may exceed what there is
ok tarn volume create tank/big 1T
ok tarn pool status --json tank
same "$(json "['provisioned']")" $((1 << 40))
same "$(json "['volumes']")" 1

# add, while served or not
ok tarn pool add tank b/d3 --file-size 512M
ok tarn pool status --json tank
same "$(json "['members'].__len__()")" 4
[ "$(json "['size']")" -gt "$size" ] || die "the pool has not grown"
fails 1 "member of pool 'tank'|in use" tarn pool add tank b/d3
fails 1 "no disk or file" tarn pool add tank b/none
fails 1 "at least 64" tarn pool add tank b/none --file-size 1M
[ ! -e b/none ] || die "a failed add has left a file"
fails 1 "no pool 'nix'" tarn pool add nix b/none --file-size 128M
[ ! -e b/none ] || die "a failed add has left a file"
same "$(stat -c %a state/.lock)" 600 "the mode of what servers wait for"

# check
ok tarn pool check tank
ok tarn pool check --data tank
ok tarn pool check --json tank
same "$(json "['n_findings']")" 0
fails 3 "no pool 'nix'" tarn pool check nix

unserve

# members are found again where the others lie, under any name; the place is remembered
mv a/d1 a/elsewhere
ok tarn volume list tank
grep -q "$work/a/elsewhere" state/tank.json || die "the new place is not written down"
mv b/d3 a/d3
ok tarn pool status --json a/d0
same "$(json "['members'].__len__()")" 4

# one that cannot be found is named, with what to do
mv a/d2 "$work/far"
fails 1 "member 2 .*is missing.*a/d2" tarn pool status tank
grep -q '^hint: .*pool import' err || die "there is no hint"
ok tarn pool list --json
same "$(json "['pools'][0]['state']")" unavailable

# import makes known what was forgotten or has moved
ok tarn pool import a/d0 far
ok tarn pool status tank
ok tarn pool forget tank
fails 1 "no pool 'tank'" tarn pool status tank
fails 1 "missing" tarn pool import a/d0
ok tarn pool import a/d3 far
ok tarn volume list --json tank
same "$(json "['volumes'][0]['name']")" tank/big

# two pools are not mixed up
ok tarn pool create other b/o1 --file-size 64M --layout concat
ok tarn pool status --json other
same "$(json "['layout']")" concat
fails 1 "another pool" tarn pool import a/d0 b/o1
fails 1 "pool 'tank' exists|'tank' exists" tarn pool create tank b/o2 --file-size 64M
[ ! -e b/o2 ] || die "a failed create has left a file"
fails 1 "member of pool 'tank'" tarn pool create new far

# of two pools of one name the one that is known keeps it; the other is reached by its members' paths
ok tarn pool create same b/s1 --file-size 64M
ok tarn pool forget same
ok tarn pool create same b/s2 --file-size 64M
fails 1 "pool 'same' exists" tarn pool import b/s1
grep -q "^hint: 'tarn pool forget same' makes room" err || die "the hint does not help: $(cat err)"
fails 1 "another pool 'same' is known" tarn serve b/s1
ok tarn volume create b/s1/there 1M
ok tarn volume list --json same
same "$(json "['volumes']")" "[]"
ok tarn pool destroy --yes b/s1
ok tarn pool destroy --yes same

# destroy needs a yes, and leaves nothing of the pool
fails 1 "yes" tarn pool destroy other
ok tarn pool destroy --yes other
fails 1 "no pool 'other'" tarn pool status other
fails 1 "not a member" tarn pool import b/o1
ok tarn pool create other b/o1

# a name whose members are all gone may be used again, with a note
rm b/o1
ok tarn pool create other b/o3 --file-size 64M
grep -q '^note: .*other' err || die "there is no note: $(cat err)"
echo "pool ($MODE): passed"
