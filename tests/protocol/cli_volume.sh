#!/bin/bash
# Volumes: made, listed, shown, resized, renamed, cloned, given properties, deleted.
set -eu
. "$(dirname "$0")/cli_common.sh"

ok tarn pool create tank d0 d1 --file-size 256M
serve tank

ok tarn volume list tank --json
same "$(json "['volumes']")" "[]"
ok tarn volume create tank/web 8G
ok tarn volume create tank/db 1536
ok tarn volume list
same "$(grep -c '^tank/' <<<"$out")" 2
ok tarn volume list --json tank
same "$(json "['volumes'][0]['name']")" tank/db
same "$(json "['volumes'][1]['size']")" $((8 << 30))
ok tarn volume show tank/web
grep -q '^size .*8589934592 bytes' <<<"$out" || die "show lacks the size"
ok tarn volume show --json tank/web
same "$(json "['name']")" tank/web
same "$(json "['properties']['discard']")" on
same "$(json "['snapshots']")" "[]"
# a member's path stands for the pool
ok tarn volume show --json "$work/d1/web"
same "$(json "['name']")" tank/web

fails 1 "exists|already" tarn volume create tank/web 1G
fails 1 "no pool 'nix'" tarn volume create nix/web 1G
fails 1 "nix" tarn volume show tank/nix
for size in 0 511 1000 8P 16E 99999999999999999999 1.3 x '' ' '; do
    fails 1 . tarn volume create tank/bad "$size"
done
fails 1 "negative|not a size" tarn volume create tank/bad -5
fails 1 "'-5G' is negative" tarn volume create tank/bad -5G
fails 2 "no option '-xy' here" tarn volume create tank/bad -xy
fails 2 "no option '-x' here" tarn volume create tank/bad -x
for name in .hidden 'a b' 'a*' "$(printf 'x%.0s' $(seq 64))" 'ä'; do
    fails 1 . tarn volume create "tank/$name" 1M
done
fails 1 "POOL/VOLUME" tarn volume create web 1M
ok tarn volume create "tank/$(printf 'x%.0s' $(seq 63))" 1M
ok tarn volume delete --yes "tank/$(printf 'x%.0s' $(seq 63))"

# growing asks nothing, shrinking does
ok tarn volume resize tank/web 16G
fails 1 "yes" tarn volume resize tank/web 4G
ok tarn volume show --json tank/web
same "$(json "['size']")" $((16 << 30))
ok tarn volume resize --yes tank/web 4G
ok tarn volume show --json tank/web
same "$(json "['size']")" $((4 << 30))
fails 1 . tarn volume resize --yes tank/web 0
fails 1 . tarn volume resize --yes tank/web 1000

ok tarn volume rename tank/web www
fails 1 "exists|already" tarn volume rename tank/www db
fails 1 "another pool" tarn volume rename tank/www other/x
ok tarn volume rename d0/www "$work/d1/www2"
ok tarn volume rename tank/www2 d1/www
fails 1 "web" tarn volume rename tank/web y
ok tarn volume rename tank/www tank/web

ok tarn volume set tank/web discard=off iops=500 iops-burst=1000 bandwidth=10M
[ ! -s err ] || die "what is acted on has a note: $(cat err)"
ok tarn volume set tank/web compression=zstd
grep -q "^note: 'compression=zstd'" err || die "nothing tells that compression is not acted on"
ok tarn volume show --json tank/web
same "$(json "['properties']['iops']")" 500
same "$(json "['properties']['discard']")" off
ok tarn volume set tank/web discard=
ok tarn volume show --json tank/web
same "$(json "['properties']['discard']")" on
ok tarn volume set tank/web bandwidth=none iops-burst=0
ok tarn volume show --json tank/web
same "$(json "['properties']['bandwidth']")" 0
same "$(json "['properties']['iops-burst']")" 0
fails 1 "from 4.0 KiB to" tarn volume set tank/web bandwidth=5
fails 1 "from 1 to 1000000000" tarn volume set tank/web iops=1G
fails 1 "iops" tarn volume set tank/web iops=fast
fails 1 "no property 'colour'" tarn volume set tank/web colour=red
fails 1 "takes 'on' or 'off'" tarn volume set tank/web iops=7 discard=maybe
ok tarn volume show --json tank/web
same "$(json "['properties']['iops']")" 500
fails 1 "PROPERTY=VALUE" tarn volume set tank/web discard

ok tarn snapshot create tank/web@one
ok tarn volume clone tank/web@one tank/copy
ok tarn volume list --json tank
same "$(json "['volumes'][0]['parent']")" tank/web@one
fails 1 "exists|already" tarn volume clone tank/web@one tank/db
ok tarn volume clone tank/web@one d1/copy1
ok tarn volume delete --yes tank/copy1
fails 1 "nix" tarn volume clone tank/web@nix tank/copy2
fails 1 "VOLUME@SNAPSHOT" tarn volume clone tank/web tank/copy2

fails 1 "yes" tarn volume delete tank/copy
ok tarn volume delete --yes tank/copy
fails 1 "has snapshots" tarn volume delete --yes tank/web
ok tarn volume show tank/web
ok tarn volume delete --yes --snapshots tank/web
fails 1 "web" tarn volume delete --yes tank/web
ok tarn volume list --json
same "$(json "['volumes'].__len__()")" 1

unserve
# what was done is there for the next process
ok tarn volume list --json
same "$(json "['volumes'][0]['name']")" tank/db
same "$(json "['volumes'][0]['size']")" 1536
ok tarn pool check tank --data
echo "volume ($MODE): passed"
