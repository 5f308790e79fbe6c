#!/bin/bash
# NBD exports as images: read and written beside files and pools, with their holes; servers of others and our own.
set -eu
. "$(dirname "$0")/common.sh"
type nbdkit qemu-nbd >/dev/null 2>&1 || skip "there is no nbdkit, or no qemu-nbd"

# serve_raw SOCKET FILE [OPTION...]: by qemu-nbd, until stopped.
serve_raw() {
    local socket=$1 file=$2
    shift 2
    qemu-nbd -t -f raw -k "$work/$socket" "$@" "$file" >/dev/null 2>&1 &
    server_pids+=($!)
    for _ in $(seq 200); do
        [ ! -S "$socket" ] || return 0
        sleep 0.05
    done
    die "qemu-nbd does not serve $file"
}

disk disk.raw sparse
serve_raw from.sock disk.raw -r -e 8
from="nbd+unix:///?socket=$work/from.sock"
ok tarn image convert "$from" have.raw
cmp disk.raw have.raw
[ "$(stat -c %b have.raw)" -le $(($(stat -c %b disk.raw) + 64)) ] || die "the holes are lost"
ok tarn pool create tank d0 d1 --file-size 256M
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    ok tarn image import "$from" "tank/$mode"
    ok tarn image export "tank/$mode" have.raw --force
    cmp disk.raw have.raw
    ok tarn volume show --json "tank/$mode"
    [ "$(json "['referenced']")" -lt $((12 << 20)) ] || die "zeroes take space: $(json "['referenced']")"
    # what is there before must not show through
    head -c 50M /dev/urandom >to.raw
    rm -f to.sock
    serve_raw to.sock to.raw
    to="nbd+unix:///?socket=$work/to.sock"
    fails 1 "is an export that exists" tarn image export "tank/$mode" "$to"
    ok tarn image export "tank/$mode" "$to" --force
    cmp -n $((40 << 20)) disk.raw to.raw
    cmp <(tail -c 10M to.raw) <(head -c 10M /dev/zero) || die "what is behind the disk's end is not zero"
    kill "${server_pids[-1]}"
    [ $mode = direct ] || serve_end
done

# from one export to another, over TCP too, and a server that knows neither zeroes nor a map
port=$((20000 + RANDOM % 20000))
nbdkit -f -p $port --ipaddr 127.0.0.1 file have.raw >/dev/null 2>&1 &
server_pids+=($!)
for _ in $(seq 100); do
    ! (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    sleep 0.05
done
head -c 40M /dev/urandom >plain.raw
nbdkit -f -U "$work/plain.sock" --filter=nozero --filter=noextents file plain.raw >/dev/null 2>&1 &
server_pids+=($!)
for _ in $(seq 100); do
    [ ! -S plain.sock ] || break
    sleep 0.05
done
ok tarn image convert "nbd://127.0.0.1:$port/" "nbd+unix:///?socket=$work/plain.sock" --force
ok tarn image import "nbd://127.0.0.1:$port" tank/tcp
ok tarn image convert "nbd+unix:///?socket=$work/plain.sock" have2.raw
cmp disk.raw have2.raw
ok tarn image export tank/tcp have2.raw --force
cmp disk.raw have2.raw

# a pool's own export, by its name
serve_now tank
ok tarn image convert "nbd+unix:///direct?socket=$work/run/tank.nbd" own.raw
cmp disk.raw own.raw
ok tarn volume create tank/new 40M
ok tarn image convert disk.raw "nbd+unix:///new?socket=$work/run/tank.nbd" --force
ok tarn image export tank/new own.raw --force
cmp disk.raw own.raw
fails 1 "nbd\+unix:///never" tarn image convert "nbd+unix:///never?socket=$work/run/tank.nbd" x.raw
serve_end

# as the backing file of a qcow2: only where the user says so, and over one connection, however often it is opened
serve_once() { # FILE: to one client
    rm -f once.sock
    qemu-nbd -f raw -r -k "$work/once.sock" "$1" >/dev/null 2>&1 &
    server_pids+=($!)
    for _ in $(seq 200); do
        [ ! -S once.sock ] || return 0
        sleep 0.05
    done
    die "qemu-nbd does not serve $1"
}
once="nbd+unix:///?socket=$work/once.sock"
mkdir layers
ok qemu-img create -q -u -f qcow2 -F raw -b "$once" layers/base.qcow2 45M
ok qemu-img create -q -u -f qcow2 -F qcow2 -b base.qcow2 layers/over.qcow2 45M
ok qemu-io -f raw -c "write -P 7 0 1M" disk.raw
serve_once disk.raw
ok qemu-io -f qcow2 -c "write -P 9 44M 64K" layers/over.qcow2
serve_once disk.raw
ok qemu-img convert -O raw layers/over.qcow2 want.raw
serve_once disk.raw
fails 1 "layers/base.qcow2' names '.*once.sock' as its backing file.*protocol's address" tarn image convert layers/over.qcow2 x.raw
grep -q "^hint: '--allow URI' permits an NBD export" err || die "no option is named: $(cat err)"
fails 1 "a protocol's address" tarn image import layers/over.qcow2 tank/x --allow "${once%once.sock}"x.sock
fails 1 "a protocol's address" tarn volume create tank/x --base layers/over.qcow2 --allow "$once"
ok tarn image convert layers/over.qcow2 have.raw --allow "$once" --verify --force
cmp want.raw have.raw
serve_once disk.raw
ok tarn image map --json layers/over.qcow2 --allow "$once"
printf '%s' "$out" >map.tarn
serve_once disk.raw
ok qemu-img map --output=json layers/over.qcow2
printf '%s' "$out" >map.qemu
ok $python -I -S "$here/maps.py" map.tarn map.qemu
serve_once disk.raw
ok qemu-img snapshot -c one layers/base.qcow2
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    serve_once disk.raw
    ok tarn image import layers/over.qcow2 "tank/over-$mode" --allow "$once" --verify
    serve_once disk.raw
    ok tarn image import layers/base.qcow2 "tank/base-$mode" --allow "$once" --verify --snapshots
    [ $mode = direct ] || serve_end
    ok tarn image export "tank/over-$mode" have.raw --force
    cmp want.raw have.raw
    ok tarn image export "tank/base-$mode@one" have.raw --force
    cmp -n $((40 << 20)) disk.raw have.raw
done
ok qemu-img create -q -u -f qcow2 -F raw -b "nbd://127.0.0.1:$port/some" layers/tcp.qcow2 40M
ok tarn image convert layers/tcp.qcow2 tcp.raw --allow "nbd://127.0.0.1:$port/"
cmp -n $((40 << 20)) have.raw tcp.raw
ok qemu-img create -q -u -f qcow2 -F qcow2 -b "nbd://127.0.0.1:$port/some" layers/tcp.qcow2 40M
fails 1 "to be qcow2, and an NBD export is read as a raw disk only" tarn image convert layers/tcp.qcow2 x.raw --allow "nbd://127.0.0.1:$port/"

# refusals, with nothing left behind
fails 1 "read-only" tarn image convert disk.raw "$from" --force
fails 1 "cannot be qcow2" tarn image convert disk.raw "$to" --format qcow2 --force
fails 1 "no variants" tarn image convert disk.raw "$to" --variant x --force
fails 1 "cannot connect to 'nbd\+unix:///\?socket=$work/none.sock'" tarn image convert "nbd+unix:///?socket=$work/none.sock" x.raw
fails 1 "cannot connect to .*No such file" tarn image import "nbd+unix:///?socket=$work/none.sock" tank/x
ok qemu-img create -q -u -f qcow2 -F raw -b "nbd+unix:///?socket=$work/none.sock" layers/none.qcow2 1M
fails 1 "cannot connect to .*No such file" tarn image import layers/none.qcow2 tank/x --allow "nbd+unix:///?socket=$work/none.sock"
fails 1 "lacks '\?socket=PATH'" tarn image import nbd+unix:///x tank/x
fails 1 "export's name" tarn image import nbd://localhost/%zz tank/x
fails 1 "volumes cannot be copied by nbd\+vsock" tarn image import nbd+vsock://1/x tank/x
fails 1 "by TLS: it has no TLS" tarn image import "nbds+unix:///?socket=$work/from.sock" tank/x
fails 1 "raw disk: '--format'" tarn image import "$from" tank/x --format qcow2
truncate -s 41M larger.raw
rm -f to.sock
serve_raw to.sock disk.raw
fails 1 "holds 41943040 bytes, and 'larger.raw' needs 42991616" tarn image convert larger.raw "$to" --force
[ ! -e x.raw ] || die "a failure has left a file"

# a server that dies
rm -f slow.sock
nbdkit -f -U "$work/slow.sock" --filter=delay pattern 1G rdelay=100ms >/dev/null 2>&1 &
slow=$!
for _ in $(seq 100); do
    [ ! -S slow.sock ] || break
    sleep 0.05
done
(sleep 1 && kill -KILL $slow) &
fails 1 "slow.sock" tarn image convert "nbd+unix:///?socket=$work/slow.sock" x.raw
[ ! -e x.raw ] || die "a failure has left a file"
echo "nbd: passed"
