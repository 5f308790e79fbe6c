#!/bin/bash
# Volumes on exports of NBD servers: of another pool's server, of qemu-nbd, of nbdkit; over ends of the connection, of
# their server and of ours; refused where an export is not what it was; and by TLS.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
type nbdkit qemu-nbd nbdcopy >/dev/null 2>&1 || skip "there is no nbdkit, qemu-nbd or nbdcopy"
. "$here/tls_common.sh"

head -c 20M /dev/urandom >golden.raw
truncate -s 60M golden.raw
head -c 5M /dev/urandom >>golden.raw
ok tarn pool create tank d0 d1 --file-size 512M
ok tarn pool create lake l0 --file-size 512M

base() { # POOL/VOLUME FIELD: of volume show
    ok tarn volume show --json "$1"
    json "['base'].get('$2')"
}
exports() { # POOL/VOLUME FILE: it holds what FILE does
    ok tarn image export "$1" got.raw --force
    cmp got.raw "$2" || die "$1 does not hold what $2 does"
}
wait_base() { # POOL/VOLUME FIELD VALUE
    for _ in $(seq 1200); do
        [ "$(base "$1" "$2")" != "$3" ] || return 0
        sleep 0.05
    done
    die "$2 of the image of $1 does not become $3: $out"
}
wait_socket() {
    for _ in $(seq 400); do
        [ ! -S "$1" ] || return 0
        sleep 0.05
    done
    die "nobody listens on $1"
}
# by_qemu SOCKET FILE, by_kit SOCKET FILE: serve it; $foreign is who does
by_qemu() {
    rm -f "$1"
    qemu-nbd -t -f raw -r -e 20 -k "$work/$1" "$2" >/dev/null 2>&1 </dev/null &
    foreign=$!
    server_pids+=($foreign)
    wait_socket "$1"
}
by_kit() {
    rm -f "$1"
    nbdkit -f -r -U "$work/$1" file "$2" >/dev/null 2>&1 </dev/null &
    foreign=$!
    server_pids+=($foreign)
    wait_socket "$1"
}
leave() {
    kill -KILL "$foreign"
    wait "$foreign" 2>/dev/null || true
}
uri() { echo "nbd+unix:///${2-}?socket=$work/$1"; }

# ---- what an export is ----
by_qemu q.sock golden.raw
from=$(uri q.sock)
ok tarn image info --json "$from"
same "$(json "['format']")" nbd
same "$(json "['virtual_size']")" $((65 << 20))
same "$(json "['export']['read_only']")" True
same "$(json "['export']['block_status']")" True
ok tarn image info "$from"
grep -q "read-only" <<<"$out" || die "$out"
ok tarn image map --json "$from"
same "$(json "[-1]['start'] + d[-1]['length']")" $((65 << 20))
[ "$(json "[1]['zero']")" = True ] || die "the map has no zeroes: $out"
fails 3 "cannot be checked" tarn image check "$from"
fails 1 "which is a raw disk: '--format'" tarn image info "$from" --format qcow2
fails 1 "cannot connect to .*No such file" tarn image info "$(uri none.sock)"

# ---- a server that says its name and nothing else is waited for by who has asked, and by nobody else ----
cat >silent.py <<'END'
import signal, socket
s = socket.socket(socket.AF_UNIX)
s.bind("silent.sock")
s.listen()
c, _ = s.accept()
c.sendall(b"NBDMAGICIHAVEOPT\0\3")
c.recv(4)
open("asked", "w")
signal.pause()
END
$python silent.py &
silent=$!
server_pids+=($silent)
wait_socket silent.sock
ok tarn pool create patient p0 --file-size 256M
ok tarn volume create patient/plain 1M
serve_now patient
patient=$server
"$TARN" volume create patient/silent --base "$(uri silent.sock)" >/dev/null 2>silent.err &
asking=$!
for _ in $(seq 400); do
    [ ! -e asked ] || break
    sleep 0.05
done
[ -e asked ] || die "the server does not ask the one that says nothing: $(cat silent.err)"
ok nbdinfo --size "nbd+unix:///plain?socket=$work/run/patient.nbd"
same "$out" $((1 << 20)) "size of a volume beside one that is being made"
kill "$asking" "$silent"
wait "$asking" "$silent" 2>/dev/null || true
server=$patient
serve_end

# ---- a server that hangs is left for one that answers: some time from now ----
first=$foreign
by_qemu still.sock golden.raw
ok tarn pool create still t0 --file-size 256M
ok tarn volume create still/one --base "$(uri still.sock)"
serve_now still
still=$server hung=$foreign
exports still/one golden.raw
kill -STOP $hung
nbdcopy "$(uri run/still.nbd one)" still.raw 2>still.err &
still_copy=$!
server_pids+=($still_copy)
by_kit still.sock golden.raw
still_kit=$foreign foreign=$first

# ---- by commands alone, and by a server: qemu-nbd's end is seen, and its return ----
ok tarn volume create tank/one --base "$from"
[[ $out == "created volume 'tank/one' of 65.0 MiB on '$from'" ]] || die "$out"
same "$(base tank/one path)" "$from"
same "$(base tank/one format)" nbd
same "$(base tank/one problem)" null
exports tank/one golden.raw
fails 1 "lacks '\?socket=PATH'" tarn volume create tank/x --base nbd+unix:///x
fails 1 "begin with '/'" tarn volume create tank/x --base 'nbd+unix:///x?socket=q.sock'
fails 1 "raw disk: '--snapshot'" tarn volume create tank/x --base "$from" --snapshot x
fails 1 "cannot connect" tarn volume create tank/x --base "$(uri none.sock)"
serve_now tank
# a request whose export has no URI
$python - "$work/run/tank.control" "$work/q.sock" <<'END' || die "a request without a URI"
import array, json, socket, sys
control, export = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
export.connect(sys.argv[2])
request = {"command": "volume-create", "pool": "tank", "volume": "x", "base": True, "path": "/x", "export": ""}
control.sendmsg([json.dumps(request).encode() + b"\n"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [export.fileno()]))])
assert b"is no NBD URI" in control.recv(65536)
END
# it gives connections to NBD servers only
$python - "$work/mute.sock" 2>/dev/null <<'END' &
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
c = s.accept()[0]
c.send(b"220 mail.example ESMTP\r\n")
c.recv(100)
END
server_pids+=($!)
wait_socket mute.sock
fails 1 "no NBD server" tarn volume create tank/x --base "$(uri mute.sock)"
exports tank/one golden.raw
ok tarn volume create tank/two 100M --base "$from"
same "$(base tank/two copied)" 0
leave
by_qemu q.sock golden.raw
exports tank/one golden.raw
grep -q "is lost" serve.tank.log || die "no word of the lost connection"

# A read waits for the server to come back, and is not zeroes.
leave
nbdcopy "$(uri run/tank.nbd one)" waited.raw 2>copy.err &
copy=$!
server_pids+=($copy)
for _ in $(seq 200); do
    ! grep -q "cannot connect to" serve.tank.log || break
    sleep 0.05
done
[ "$(base tank/one problem)" != null ] || die "nothing is told of the base that is missing: $out"
fails 1 "cannot connect to '.*q.sock'" tarn image export tank/two x.raw
kill -0 $copy 2>/dev/null || die "a reader was not kept waiting: $(cat copy.err)"
by_kit q.sock golden.raw
wait $copy || die "the copy failed: $(cat copy.err)"
cmp waited.raw golden.raw
wait_base tank/one problem null

# ---- our server starts while theirs is not there: all else is served, and nothing is zero ----
ok tarn volume create tank/plain 8M
serve_end
leave
rm -f q.sock
serve_now tank
exports tank/plain <(head -c 8M /dev/zero)
wait_base tank/one hydrating False
for _ in $(seq 200); do
    [ "$(base tank/one problem)" = null ] || break
    sleep 0.05
done
fails 1 "cannot connect to '.*q.sock'" tarn image export tank/one x.raw
! nbdinfo --size "$(uri run/tank.nbd one)" 2>/dev/null || die "a volume without its base is served"
fails 1 "cannot connect" tarn volume hydrate tank/one
ok tarn volume show tank/one
grep -q "cannot connect to" <<<"$out" || die "$out"
by_qemu q.sock golden.raw
wait_base tank/one problem null
exports tank/one golden.raw

# ---- another export in its place: of another size, of other content ----
leave
head -c 66M golden.raw >larger.raw
truncate -s 66M larger.raw
by_qemu q.sock larger.raw
fails 1 "has 69206016 bytes now, and had 68157440|lost|cannot" tarn image export tank/one x.raw
wait_base tank/one hydrating False
grep -q "69206016 bytes now" serve.tank.log || die "nothing is said of the size: $(cat serve.tank.log)"
[[ $(base tank/one problem) == *"69206016 bytes now"* ]] || die "$out"
leave
cp golden.raw other.raw
printf x | dd of=other.raw bs=1 seek=70 conv=notrunc status=none
by_qemu q.sock other.raw
serve_end
fails 1 "has other content now" tarn image export tank/one x.raw
[ ! -e x.raw ] || die "half an export is there"
serve_now tank
wait_base tank/one hydrating False
for _ in $(seq 200); do
    [ "$(base tank/one problem)" = null ] || break
    sleep 0.05
done
fails 1 "has other content now" tarn image export tank/one x.raw
fails 1 "has other content now" tarn volume hydrate tank/one

# ---- told where it is now: by another server, and a file ----
fails 1 "has other content than the image" tarn volume rebase tank/one other.raw
fails 1 "69206016 bytes, and the image had 68157440" tarn volume rebase tank/one larger.raw
fails 1 "does not stand on an image" tarn volume rebase tank/plain golden.raw
by_kit kit.sock golden.raw
kit=$foreign
ok tarn volume rebase tank/one "$(uri kit.sock)"
same "$(base tank/two path)" "$(uri kit.sock)" "of the volume that shares it"
exports tank/one golden.raw
kill -KILL $kit
qemu-img convert -f raw -O qcow2 golden.raw golden.qcow2
mkdir sub && mv golden.qcow2 sub
ok tarn volume rebase tank/one sub/golden.qcow2
same "$(base tank/one format)" qcow2
exports tank/one golden.raw
mv sub/golden.qcow2 moved.qcow2
touch moved.qcow2
serve_end
fails 1 "golden.qcow2" tarn image export tank/one x.raw
ok tarn volume rebase tank/one moved.qcow2
exports tank/one golden.raw
serve_now tank
exports tank/two <(cat golden.raw <(head -c 35M /dev/zero))
for volume in one two plain; do ok tarn volume delete --yes tank/$volume; done

# ---- another pool's snapshot, by its own server: copied over ends of both ----
ok tarn image import golden.raw lake/gold
ok tarn snapshot create lake/gold@one
tank=$server
serve_now lake
lake=$server
snapshot=$(uri run/lake.nbd gold@one)
ok tarn volume create tank/web --base "$snapshot"
ok tarn snapshot create tank/web@mine
ok tarn volume clone tank/web@mine tank/copy
$python - "$(uri run/lake.nbd gold)" "$(uri run/tank.nbd web)" <<'END'
import nbd, sys
for uri, byte in (sys.argv[1], b"a"), (sys.argv[2], b"b"):
    h = nbd.NBD()
    h.connect_uri(uri)
    h.pwrite(byte * 65536, 1 << 20)
    h.flush()
    h.shutdown()
END
cp golden.raw web.raw
head -c 64k /dev/zero | tr '\0' b | dd of=web.raw bs=64k seek=16 conv=notrunc status=none
exports tank/web web.raw
exports tank/copy golden.raw
ok tarn volume hydrate tank/web --bandwidth 2M
for _ in $(seq 400); do
    [ "$(base tank/web copied)" = 0 ] || break
    sleep 0.05
done
kill -KILL "$lake"
wait "$lake" 2>/dev/null || true
kill -KILL "$tank"
wait "$tank" 2>/dev/null || true
serve_now tank
same "$(base tank/web hydrating)" True "after a kill"
tank=$server
serve_now lake
lake=$server
wait_base tank/web problem null
exports tank/web web.raw
server=$tank
serve_now tank --takeover
wait "$tank" || die "the old server failed"
tank=$server
exports tank/copy golden.raw
ok tarn volume hydrate tank/web
wait_base tank/web complete True
# Zeroes are known by block status, and take no space.
[ "$(base tank/web copied)" -le $((25 << 20)) ] || die "zeroes were copied: $out"
kill -TERM "$lake"
wait "$lake" || die "the other server failed"
rm l0
exports tank/web web.raw
exports tank/copy golden.raw
server=$tank
serve_end
serve_now tank
exports tank/copy golden.raw
serve_end
ok tarn pool check --data tank
for volume in web copy; do ok tarn volume delete --yes --snapshots tank/$volume; done

# ---- by TLS: certificates, a key, and those that do not hold ----
authority ca
authority strange
certificate server ca tls_www_server
client_folder trust ca
client_folder distrust strange
key alice
(umask 077 && printf '%s:%s\n' alice "$(printf '0%.0s' $(seq 64))" >wrong.psk)
ok tarn pool create sea s0 --file-size 256M
ok tarn image import golden.raw sea/gold
serve_now sea --nbd tcp:127.0.0.1:0 --tls require --tls-cert server.pem --tls-key server.key --tls-psk keys.psk
port=$(grep -oE 'NBD .*127.0.0.1:[0-9]+' serve.sea.log | grep -oE '[0-9]+$')
sea=$server
x509="nbds://127.0.0.1:$port/sea/gold?tls-certificates=$work"
psk="nbds://alice@127.0.0.1:$port/sea/gold?tls-psk-file=$work"
fails 1 "cannot connect to .* by TLS" tarn volume create tank/tls --base "$x509/distrust"
fails 1 "cannot connect to .* by TLS" tarn volume create tank/tls --base "$x509/trust&tls-hostname=other.example"
fails 1 "cannot connect to .* by TLS" tarn volume create tank/tls --base "$psk/wrong.psk"
fails 1 "no 'ca-cert.pem'" tarn volume create tank/tls --base "$x509/none"
fails 1 "TLS|tls" tarn volume create tank/tls --base "nbd://127.0.0.1:$port/sea/gold"
ok tarn image info --json "$x509/trust"
same "$(json "['export']['tls']")" True
ok tarn image import "$x509/trust" tank/imported
exports tank/imported golden.raw
ok tarn volume create tank/tls --base "$x509/trust"
exports tank/tls golden.raw
ok tarn volume create tank/key --base "$psk/keys.psk"
serve_now tank
exports tank/tls golden.raw
exports tank/key golden.raw
# GnuTLS works where there is nothing to gain.
n_tls=0
for status in /proc/[0-9]*/status; do
    grep -qx "Name:	tarn-tls" "$status" 2>/dev/null &&
        tr '\0' '\n' <"${status%status}environ" 2>/dev/null | grep -qx "TARN_STATE_DIR=$work/state" || continue
    n_tls=$((n_tls + 1))
    grep -Eq "^CapEff:	0+$" "$status" || die "a process of TLS has capabilities: $(grep CapEff "$status")"
    [[ ${SANITIZER:-none} = *address* ]] || grep -q "^Seccomp:	2" "$status" || die "a process of TLS is not confined"
done
[ "$n_tls" -ge 2 ] || die "there are $n_tls processes of TLS"
# What connects for the server is left with what reads keys that only their user may.
n_connectors=0
for status in /proc/[0-9]*/status; do
    grep -qx "Name:	tarn-connector" "$status" 2>/dev/null && grep -qx "PPid:	$server" "$status" || continue
    n_connectors=$((n_connectors + 1))
    grep -Eq "^CapEff:	0+[02]$" "$status" || die "what connects has capabilities: $(grep CapEff "$status")"
    grep -q "^NoNewPrivs:	1" "$status" || die "what connects may get privileges"
done
same "$n_connectors" 1 "processes that connect"
ok tarn volume hydrate tank/key
wait_base tank/key complete True
! grep -rq "$(cut -d: -f2 keys.psk)" d0 d1 || die "a key is in the pool"
ok tarn image export tank/tls "$x509/trust" --force
serve_end
kill -TERM "$sea"
wait "$sea" || die "the third server failed"
wait $still_copy || die "a server that hangs is not left: $(cat still.err)"
cmp still.raw golden.raw
grep -q "has not answered for 30 s" serve.still.log || die "no word of the silence"
kill -KILL $hung $still_kit
kill -TERM "$still"
wait "$still" || die "the fourth server failed"
echo "cli_base_nbd: passed"
