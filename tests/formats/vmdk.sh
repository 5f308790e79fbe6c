#!/bin/bash
# VMDK: every variant, in both directions.
set -eu
. "$(dirname "$0")/common.sh"

# info_of FILE KEY VALUE
info_of() {
    ok tarn image info --json "$1"
    same "$(json "['$2']")" "$3" "$2 of $1"
}

for kind in "${disk_kinds[@]}"; do
    disk disk.raw "$kind"
    for variant in monolithicSparse streamOptimized; do
        if [ "$kind" = huge ]; then # qemu-img looks at each cluster, which takes minutes
            ok tarn image convert --from-format raw disk.raw huge.vmdk --format vmdk --variant $variant --force
            ok tarn image convert huge.vmdk back.raw --force
            same_content disk.raw raw back.raw raw
            continue
        fi
        write_ours disk.raw vmdk --variant $variant
        info_of ours.vmdk virtual_size $((($(stat -c %s disk.raw) + 511) / 512 * 512))
        read_theirs disk.raw vmdk -o subformat=$variant
    done
done

# Of a flat file's holes qemu-img says that they are data and read as zeroes.
same_map() {
    ok tarn image map --json --format "$2" "$1"
    printf '%s' "$out" >map.tarn
    ok qemu-img map --output=json -f "$2" "$1"
    sed 's/"zero": true, "data": true/"zero": true, "data": false/' <<<"$out" >map.qemu
    ok $python -I -S "$here/maps.py" map.tarn map.qemu
}

# several files
for kind in sparse bytes; do
    disk disk.raw "$kind"
    for variant in monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
        rm -f ours-* theirs-*
        write_ours disk.raw vmdk --variant $variant
        info_of ours.vmdk variant $variant
        read_theirs disk.raw vmdk -o subformat=$variant
    done
done

# a check looks into every one of them, where it may
disk disk.raw sparse
rm -f ours*
mkdir parts elsewhere
ok tarn image convert --from-format raw disk.raw parts/ours.vmdk --format vmdk --variant twoGbMaxExtentSparse
ok tarn image check parts/ours.vmdk
grep -q "nothing wrong was found" <<<"$out" || die "$out"
mv parts/ours-s001.vmdk elsewhere
ln -s ../elsewhere/ours-s001.vmdk parts/ours-s001.vmdk
fails 3 "lies outside of its folder" tarn image check parts/ours.vmdk
ok tarn image check parts/ours.vmdk --allow elsewhere
truncate -s -64K elsewhere/ours-s001.vmdk
status=0
tarn image check parts/ours.vmdk --allow elsewhere >out 2>err || status=$?
same "$status" 1 "status of a part that is cut off"
grep -q "'parts/ours-s001.vmdk': the entry at offset" out || die "$(cat out err)"
rm elsewhere/ours-s001.vmdk
fails 3 "cannot open 'ours-s001.vmdk'" tarn image check parts/ours.vmdk --allow elsewhere

truncate -s 5G large.raw
for at in 0 2146435000 2147483640 4292870000 5368709000; do
    printf 'data at %s' $at | dd of=large.raw bs=1 seek=$at conv=notrunc status=none
done
for variant in twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    rm -f ours* theirs*
    ok tarn image convert --from-format raw large.raw ours.vmdk --format vmdk --variant $variant
    same "$(echo ours-?00?.vmdk | wc -w)" 3 "parts of 5 GiB"
    same_content large.raw raw ours.vmdk vmdk
    ok qemu-img convert -O vmdk -o subformat=$variant large.raw theirs.vmdk
    for file in ours theirs; do
        ok tarn image convert $file.vmdk back.raw --force
        same_content large.raw raw back.raw raw
    done
done

# theirs, over 2 TiB
tib=$((1 << 40))
for variant in monolithicSparse monolithicFlat; do
    read_large vmdk 3T "0 $((2 * tib - 512)) $((2 * tib)) $((2 * tib + 70000 * 512)) $((3 * tib - 100 * 1024))" -o subformat=$variant
done

# a chain
ok qemu-img create -q -f vmdk -o zeroed_grain=on base.vmdk 64M
ok qemu-io -c 'write -P 5 0 8M' -c 'write -z 1M 2M' base.vmdk
ok qemu-img create -q -f vmdk -o zeroed_grain=on -b base.vmdk -F vmdk child.vmdk 70M
ok qemu-io -c 'write -P 9 4M 64k' -c 'write -z 5M 1M' child.vmdk
ok qemu-img convert -O raw child.vmdk child.raw
read_back child.raw child.vmdk vmdk
ok qemu-io -c 'write -P 6 0 512' base.vmdk # which gives it another content id
fails 1 "was changed after" tarn image convert child.vmdk new.raw
[ ! -e new.raw ] || die "a file is left"

disk disk.raw sparse
write_ours disk.raw vmdk
info_of ours.vmdk variant monolithicSparse
write_ours disk.raw vmdk --compression zlib
info_of ours.vmdk variant streamOptimized
for size in 8K 2M; do
    write_ours disk.raw vmdk --cluster-size $size
    write_ours disk.raw vmdk --cluster-size $size --variant streamOptimized
done

# entries for zeroes, versions and adapters
for options in zeroed_grain=on compat6=on adapter_type=lsilogic hwversion=13; do
    read_theirs disk.raw vmdk -o $options
done
ok qemu-img create -q -f vmdk -o zeroed_grain=on zero.vmdk 8M
ok qemu-io -c 'write -P 7 0 4M' -c 'write -z 1M 1M' -c 'discard 3M 512k' zero.vmdk
ok qemu-img convert -O raw zero.vmdk zero.raw
read_back zero.raw zero.vmdk vmdk

# nothing is left of what could not be made
mkdir new
fails 1 "no variant 'thick'" tarn image convert disk.raw new/x --format vmdk --variant thick
fails 1 "no compression 'zstd'" tarn image convert disk.raw new/x --format vmdk --compression zstd
fails 1 "power of two" tarn image convert disk.raw new/x --format vmdk --cluster-size 4K
same "$(ls -A new)" "" "what failures have left"

# cut off on the way
ok tarn image convert disk.raw cut.vmdk --format vmdk --variant streamOptimized
truncate -s -512 cut.vmdk
fails 1 "no footer" tarn image convert cut.vmdk new/x --format raw

echo "vmdk: passed"
