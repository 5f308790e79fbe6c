#!/bin/bash
# Images of several files: those that are read are opened where that is allowed, also for a server; those that are made
# have their names all together, or not at all.
set -eu
. "$(dirname "$0")/common.sh"

disk disk.raw sparse
mkdir images outside new
ok qemu-img convert -O qcow2 disk.raw outside/base.qcow2
ok qemu-img create -q -f qcow2 -b ../outside/base.qcow2 -F qcow2 images/middle.qcow2
ok qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 images/top.qcow2
ok qemu-io -f qcow2 -c 'write -q -P 7 1M 128K' images/top.qcow2
ok qemu-img convert -O raw images/top.qcow2 want.raw

fails 1 "'images/middle.qcow2' names '../outside/base.qcow2' as its backing file, which lies outside" \
    tarn image convert images/top.qcow2 new/x.raw
grep -q "^hint: '--allow PATH'" err || die "there is no hint"
ok tarn image convert images/top.qcow2 have.raw --allow outside
cmp want.raw have.raw
ok tarn image map --json images/top.qcow2 --allow outside/base.qcow2
same "$(json "[0]['depth']")" 2
ok tarn image info --json images/top.qcow2 # alone
same "$(json "['backing_file']")" middle.qcow2
ok qemu-img create -q -f qcow2 -b 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}' -F raw -u \
    images/json.qcow2 1M
fails 1 "no file's name but a protocol's address" tarn image convert images/json.qcow2 new/x.raw --allow /

ok tarn image convert --from-format raw disk.raw ours.vmdk --format vmdk
ok tarn pool create tank d0 --file-size 256M
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    fails 1 "lies outside" tarn image import images/top.qcow2 "tank/$mode"
    ok tarn image import images/top.qcow2 "tank/$mode" --allow outside
    ok tarn image export "tank/$mode" have.raw --force
    cmp want.raw have.raw

    ok tarn image export "tank/$mode" "new/$mode.vmdk" --format vmdk --variant twoGbMaxExtentSparse
    [ "$(find new -name "$mode*.vmdk" | wc -l)" = 2 ] || die "there are not two files: $(ls new)"
    same_content want.raw raw "new/$mode.vmdk" vmdk
    # one of its files is in the way
    rm "new/$mode.vmdk"
    fails 1 "exists" tarn image export "tank/$mode" "new/$mode.vmdk" --format vmdk --variant twoGbMaxExtentSparse
    [ ! -e "new/$mode.vmdk" ] || die "a failed export has left its first file"
    ok tarn image export "tank/$mode" "new/$mode.vmdk" --format vmdk --variant twoGbMaxExtentSparse --force
    same_content want.raw raw "new/$mode.vmdk" vmdk
    rm new/*
    [ $mode = direct ] || serve_end
done
same "$(ls -A new)" "" "what failures have left"

# a name as Windows writes it: files are found by it, a request cannot tell it
head -c 1M /dev/urandom >$'images/d\xfc.img'
printf '# Disk DescriptorFile\nCID=1\nRW 2048 FLAT "d\xfc.img" 0\n' >images/latin.vmdk
ok tarn image info images/latin.vmdk
ok tarn image check images/latin.vmdk
ok tarn image map images/latin.vmdk
ok tarn image convert images/latin.vmdk have.raw --force
cmp $'images/d\xfc.img' have.raw
fails 1 "'images/latin.vmdk' names 'd.xfc.img', which is not UTF-8" tarn image import images/latin.vmdk tank/latin
grep -q "^hint: 'tarn image convert'" err || die "there is no hint"
cp ours.vmdk $'images/s\xfc.vmdk'
printf '# Disk DescriptorFile\nCID=1\nRW 81920 SPARSE "s\xfc.vmdk"\n' >images/latin.vmdk
truncate -s -64K $'images/s\xfc.vmdk'
status=0
tarn image check --json images/latin.vmdk >out 2>err || status=$?
same "$status" 1 "status of a damaged part"
grep -q "'images/s.*vmdk': the entry at offset" out || die "$(cat out err)"
echo "other files: passed"
