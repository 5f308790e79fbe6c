#!/bin/bash
# Snapshots: made alone and in groups, listed as a tree, restored keeping what was, deleted, compared.
set -eu
. "$(dirname "$0")/cli_common.sh"

# write VOLUME TEXT OFFSET: into a volume, by way of an image: works with and without a server
content() { # NAME -> sha256 of its first MiB
    rm -f content.raw
    ok tarn image export "$1" content.raw
    head -c 1M content.raw | sha256sum | cut -d' ' -f1
}

head -c 1M /dev/urandom >one.raw
head -c 1M /dev/urandom >two.raw
one=$(sha256sum <one.raw | cut -d' ' -f1)
two=$(sha256sum <two.raw | cut -d' ' -f1)

ok tarn pool create tank d0 d1 --file-size 256M
serve tank
ok tarn image import one.raw tank/web
ok tarn image import two.raw tank/db

# a group is one command
ok tarn snapshot create tank/web@monday tank/db@monday
fails 1 "exists|already" tarn snapshot create tank/web@tuesday tank/db@monday
ok tarn snapshot list --json tank
same "$(json "['snapshots'].__len__()")" 2
fails 1 "nix" tarn snapshot create tank/nix@x
fails 1 "VOLUME@SNAPSHOT" tarn snapshot create tank/web
fails 1 . tarn snapshot create tank/web@
fails 1 . tarn snapshot create 'tank/web@a@b'
fails 1 "different pools" tarn snapshot create tank/web@x other/web@x
# a member's path stands for the pool, also beside its name
ok tarn snapshot create tank/web@x d1/db@x
ok tarn snapshot diff tank/web@x "$work/d0/db@x" --json
mkdir -p tank
: >tank/web
for name in tank/web d1/web ./d0/web "$work/d0/web"; do
    ok tarn snapshot list "$name" --json
    same "$(json "['snapshots'].__len__()")" 2 "snapshots of $name"
done
for name in d1 ./d0 "$work/d0"; do
    ok tarn snapshot list "$name" --json
    same "$(json "['snapshots'].__len__()")" 4 "snapshots of $name"
done
# what is not there is not asked about
fails 1 "no snapshot 'tank/web@nix'" tarn snapshot delete tank/web@nix
fails 1 "no snapshot 'tank/web@nix'" tarn snapshot restore tank/web@nix --discard-current
fails 1 "not a snapshot" tarn snapshot delete tank/web
fails 1 "no volume 'tank/nix'" tarn snapshot delete tank/nix@x
fails 1 "needs a yes" tarn snapshot delete d0/web@x
ok tarn snapshot delete --yes tank/web@x
ok tarn snapshot delete --yes tank/db@x

# restoring keeps what the volume held, under a name that is told
ok tarn volume clone tank/web@monday tank/clone
ok tarn snapshot restore tank/web@monday
kept=$(grep -Eo "tank/web@before-restore-[0-9]{8}-[0-9]{6}" <<<"$out") || die "no name is told: $out"
ok tarn snapshot list --json tank/web
same "$(json "['snapshots'].__len__()")" 2
same "$(content tank/web)" "$one"
same "$(content "$kept")" "$one"
# ... twice in a second too
ok tarn snapshot restore tank/web@monday
ok tarn snapshot restore "$kept"
ok tarn snapshot list --json tank/web
same "$(json "['snapshots'].__len__()")" 4
fails 1 "yes" tarn snapshot restore --discard-current tank/web@monday
ok tarn snapshot restore --discard-current --yes tank/web@monday
ok tarn snapshot list --json tank/web
same "$(json "['snapshots'].__len__()")" 4
fails 1 "nix" tarn snapshot restore tank/web@nix

# the tree
ok tarn snapshot list tank
grep -q 'tank/web@monday .*tank/clone' <<<"$out" || die "the tree does not name the clone: $out"
grep -q '.─tank/clone ' <<<"$out" || die "the clone does not stand below its snapshot: $out"
fails 1 "tank/nix" tarn snapshot list tank/nix
ok tarn volume create tank/lone 1M
ok tarn snapshot list tank
! grep -q 'tank/lone' <<<"$out" || die "a volume without snapshots is in the tree"

# a snapshot is content that stays
same "$(content tank/web@monday)" "$one"
same "$(content tank/db@monday)" "$two"
ok tarn snapshot diff tank/web@monday tank/web --json
same "$(json "['changed_bytes']")" 0
ok tarn snapshot diff tank/web@monday tank/db@monday --json
same "$(json "['changed_bytes']")" $((1 << 20))
same "$(json "['ranges'][0]['offset']")" 0
ok tarn snapshot diff tank/web@monday tank/db@monday
grep -q '^1.0 MiB changed' <<<"$out" || die "diff does not sum up: $out"
fails 1 "different pools" tarn snapshot diff tank/web other/web
fails 1 "nix" tarn snapshot diff tank/web tank/nix

# deleted also where there are clones
fails 1 "yes" tarn snapshot delete tank/web@monday
ok tarn snapshot delete --yes tank/web@monday
same "$(content tank/clone)" "$one"
fails 1 "monday" tarn snapshot delete --yes tank/web@monday
for name in $(tarn snapshot list --json tank | grep -o '"tank/web@[^"]*"' | tr -d '"' | sort -u); do
    ok tarn snapshot delete --yes "$name"
done
ok tarn snapshot list --json tank/web
same "$(json "['snapshots']")" "[]"
same "$(content tank/web)" "$one"
unserve
ok tarn pool check tank --data
echo "snapshot ($MODE): passed"
