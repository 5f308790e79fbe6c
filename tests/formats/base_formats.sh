#!/bin/bash
# Volumes on an image of each format: what it holds is there at once, after a restart, and when the image is gone; and a
# change of any of its files is noticed.
set -eu
. "$(dirname "$0")/common.sh"

volumes=()
seed=1 # of the last image: no two are the same

# image NAME FORMAT [QEMU-OPTION...]: NAME/disk, of random content, which NAME.raw has as well.
image() {
    local name=$1 format=$2
    shift 2
    mkdir "$name"
    seed=$((seed + 1))
    disk "$name.raw" odd $seed
    # within: qemu-img takes the names of other files from where it runs
    cd "$name"
    ok qemu-img convert -f raw -O "$(qemu_name "$format")" "$@" "../$name.raw" disk
    cd ..
}

# on NAME FORMAT [OPTION...]: volume NAME on NAME/disk, which is recognised
on() {
    local name=$1 format=$2 size
    shift 2
    ok qemu-img info --output=json -f "$(qemu_name "$format")" "$name/disk"
    size=$(json "['virtual-size']")
    ok tarn volume create "tank/$name" --base "$name/disk" "$@"
    ok tarn volume show --json "tank/$name"
    same "$(json "['base']['format']") $(json "['size']")" "$format $size" "what $name stands on"
    volumes+=("$name")
}

# Over NBD, all of them.
hold_what_they_should() { # WHEN
    local name
    for name in "${volumes[@]}"; do
        qemu-img compare -f raw -F raw "nbd+unix:///$name?socket=$work/run/tank.nbd" "$name.raw" >out 2>&1 ||
            die "$name does not hold what its image did, $1: $(cat out)"
    done
}

ok tarn pool create tank d0 --file-size 512M
serve_now tank

image plain qcow2 -o cluster_size=4k
on plain qcow2
image packed qcow2 -c -o compression_type=zstd
on packed qcow2
image outside qcow2 -o data_file=data
on outside qcow2
image outside_raw qcow2 -o data_file=data,data_file_raw=on
on outside_raw qcow2
for variant in monolithicSparse streamOptimized monolithicFlat twoGbMaxExtentSparse twoGbMaxExtentFlat; do
    image $variant vmdk -o subformat=$variant
    on $variant vmdk
done
for variant in on off; do
    image vdi_static_$variant vdi -o static=$variant
    on vdi_static_$variant vdi
done
for variant in dynamic fixed; do
    image vhd_$variant vhd -o subformat=$variant
    on vhd_$variant vhd
    image vhdx_$variant vhdx -o subformat=$variant,block_size=1M
    on vhdx_$variant vhdx
done

# the state that a snapshot keeps, and not the image's own
image kept qcow2
ok qemu-img snapshot -c monday kept/disk
ok qemu-io -f qcow2 -c 'write -P 9 0 1M' -c 'write -P 8 3M 1M' kept/disk
on kept qcow2 --snapshot monday

# differences to another image, of the same format and of others
for below in vmdk vdi vhdx; do
    mkdir over_$below
    seed=$((seed + 1))
    disk below.raw odd $seed
    ok qemu-img convert -f raw -O $below below.raw over_$below/below
    format=qcow2
    [ $below != vmdk ] || format=vmdk
    ok qemu-img create -q -f $format -b below -F $below over_$below/disk
    ok qemu-io -f $format -c 'write -P 3 1M 100k' -c 'write -P 4 4M 64k' over_$below/disk
    ok qemu-img convert -f $format -O raw over_$below/disk over_$below.raw
    on over_$below $format
done

hold_what_they_should "at once"
serve_end

# each file that an image has is looked at, and a volume goes on when it is as it was
for file in outside/data outside_raw/data monolithicFlat/disk-flat twoGbMaxExtentSparse/disk-s001 \
    twoGbMaxExtentFlat/disk-f001 over_vmdk/below over_vdi/below over_vhdx/below; do
    touch -r "$file" stamp
    touch -d 2001-01-01 "$file"
    fails 1 "${file%/*}/disk.* was changed" tarn image export "tank/${file%/*}" got.raw
    [ ! -e got.raw ] || die "an export of $file's volume is there"
    touch -r stamp "$file"
done

serve_now tank
hold_what_they_should "after a restart"

# written by a guest, copied, and then the image is not needed
for name in "${volumes[@]}"; do
    for file in "nbd+unix:///$name?socket=$work/run/tank.nbd" "$name.raw"; do
        ok qemu-io -f raw -c 'write -P 7 2500k 60k' -c 'write -P 6 30k 3k' "$file"
    done
    ok tarn volume hydrate "tank/$name"
done
for name in "${volumes[@]}"; do
    for _ in $(seq 600); do
        ok tarn volume show --json "tank/$name"
        [ "$(json "['base']['complete']")" != True ] || break
        sleep 0.05
    done
    same "$(json "['base']['complete']")" True "whether all of $name is copied"
    rm -r "${name:?}"
done
serve_end
ok tarn pool check --data tank
serve_now tank
hold_what_they_should "without it"
serve_end

echo "base formats: passed"
