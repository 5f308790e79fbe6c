#!/bin/bash
# Raw images: copied with their holes, of any size, from files and as maps.
set -eu
. "$(dirname "$0")/common.sh"

for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    read_theirs disk.raw raw
    write_ours disk.raw raw
    same "$(stat -c %s ours.raw)" "$(stat -c %s disk.raw)" "size of $kind"
    [ "$(stat -c %b ours.raw)" -le $(($(stat -c %b disk.raw) + 64)) ] || die "the copy of $kind is not sparse"
done

# written zeroes become holes
head -c 4M /dev/zero >zero.raw
ok tarn image convert zero.raw ours.raw --force
same "$(stat -c '%s %b' ours.raw)" "$((4 << 20)) 0"

# what is said of it
disk disk.raw sparse
ok tarn image info --json disk.raw
same "$(json "['guessed']") $(json "['virtual_size']") $(json "['snapshots']")" "True $((40 << 20)) []"
ok tarn image map disk.raw
grep -Eq '^ *0 +[0-9]+ (data|zero)' <<<"$out" || die "the map begins with: $(head -2 <<<"$out")"
fails 3 "cannot be checked: there is nothing in raw images" tarn image check disk.raw

# refusals, and nothing is left behind
mkdir new
fails 1 "exists" tarn image convert disk.raw ours.raw
fails 1 "no image format 'zip'" tarn image convert disk.raw new/x --format zip
fails 1 "no image format 'zip'" tarn image convert disk.raw new/x --from-format zip
fails 1 "no variants and no compression" tarn image convert disk.raw new/x --variant fixed
fails 1 "no variants and no compression" tarn image convert disk.raw new/x --compression zstd
fails 1 "not a power of two" tarn image convert disk.raw new/x --cluster-size 3K
fails 1 "cluster-size: " tarn image convert disk.raw new/x --cluster-size zz
fails 1 "No such file" tarn image convert none.raw new/x
fails 1 "neither" tarn image convert /dev/null new/x
fails 1 "neither" tarn image map new
fails 3 "neither" tarn image check new
same "$(ls -A new)" "" "what failures have left"

# over itself
cp disk.raw self.raw
ok tarn image convert self.raw self.raw --force
cmp disk.raw self.raw

# interrupted: nothing is left
head -c 300M /dev/urandom >slow.raw
for signal in INT TERM KILL; do
    "$TARN" image convert slow.raw new/slow.raw >/dev/null 2>"$work/err" &
    pid=$!
    sleep 0.05
    kill "-$signal" "$pid" 2>/dev/null || true
    got=0
    wait "$pid" 2>/dev/null || got=$?
    if [ "$got" = 0 ]; then
        cmp slow.raw new/slow.raw
        rm new/slow.raw
    fi
    same "$(ls -A new)" "" "what SIG$signal has left"
done

echo "raw: passed"
