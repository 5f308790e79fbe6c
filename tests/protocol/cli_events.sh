#!/bin/bash
# tarn pool events: what commands, clients and the engine do is told, in order, as lines; and what it says without a server.
set -eu
. "$(dirname "$0")/cli_common.sh"
$python -c 'import nbd' 2>/dev/null || skip "no Python module of libnbd"

ok tarn pool create tank d0 --file-size 64M
fails 1 "'tank' is not being served" tarn pool events tank
fails 1 "no pool 'nix'|'nix'" tarn pool events nix
fails 2 . tarn pool events
serve_now tank

mkfifo events
"$TARN" pool events --json tank >events 2>events.err &
listener=$!
server_pids+=("$listener")
exec 3<events
# The subscription stands once the server has a client that asked for it: what is done from here on is told.
subscribed() {
    ok tarn volume create tank/probe 1M
    ok tarn volume delete --yes tank/probe
    local line
    read -r -t 1 line <&3
}
for _ in $(seq 60); do
    ! subscribed || break
done
while read -r -t 1 out <&3; do :; done

# next EVENT FIELD=VALUE...: the next event, and what it says
next() {
    local event=$1
    shift
    read -r -t 60 out <&3 || die "no event where '$event' was expected: $(cat events.err)"
    same "$(json "['event']")" "$event" "$out"
    same "$(json "['pool']")" tank
    for field in "$@"; do
        same "$(json "['${field%%=*}']")" "${field#*=}" "$out"
    done
}
ok tarn volume create tank/web 1G
next volume-created volume=web size=1073741824
fails 1 . tarn volume create tank/web 1G
ok tarn volume resize tank/web 2G
next volume-resized volume=web size=2147483648
ok tarn volume set tank/web iops=100000
next volume-set volume=web 'properties={"iops": "100000"}'
ok tarn snapshot create tank/web@one
next snapshots-created 'names=["web@one"]'
ok tarn volume clone tank/web@one tank/copy
next volume-created volume=copy snapshot=web@one
ok tarn snapshot restore --yes tank/web@one
next snapshot-restored snapshot=web@one
grep -q '"kept":"tank/web@before-restore-' <<<"$out" || die "nothing tells what was kept: $out"
ok tarn snapshot restore --yes --discard-current tank/web@one
next snapshot-restored snapshot=web@one
! grep -q '"kept"' <<<"$out" || die "nothing was kept: $out"
ok tarn volume rename tank/copy tank/other
next volume-renamed volume=copy new_name=other
ok tarn volume attach tank/other --vhost-user "$work/v.sock"
next volume-attached volume=other path="$work/v.sock"
ok tarn volume detach tank/other
next volume-detached volume=other path="$work/v.sock"
ok tarn volume delete --yes tank/other
next volume-deleted volume=other
ok tarn snapshot delete --yes tank/web@one
next snapshot-deleted snapshot=web@one

# clients, a pool that is full, and space again
timeout -k 5 100 $python - "nbd+unix:///tank/web?socket=$work/run/tank.nbd" <<'PY' || die "the client failed"
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
try:
    for i in range(256):
        h.pwrite(b"x" * (1 << 20), i << 20)
    raise SystemExit("the pool was not full")
except nbd.Error as e:
    assert e.errno == "ENOSPC", e
h.shutdown()
PY
next client-connected volume=web readonly=False
grep -Eq '"user":"nbd unix pid [0-9]+"' <<<"$out" || die "nothing tells who: $out"
next pool-filling
next pool-filling
grep -Eq '"percent":9[5-9]' <<<"$out" || die "nothing tells how full: $out"
next pool-full
next client-disconnected volume=web readonly=False
ok tarn volume delete --yes --snapshots tank/web
next volume-deleted volume=web
next space-again

# a disk that is damaged
ok tarn volume create tank/bad 1M
next volume-created
timeout -k 5 100 $python - "nbd+unix:///tank/bad?socket=$work/run/tank.nbd" "$work/d0" <<'PY' || die "the client failed"
import nbd, sys
mark = b"this block is going to be found on the disk"
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(mark + bytes(4096 - len(mark)), 8192)
h.flush()
with open(sys.argv[2], "r+b") as f:
    at = f.read().index(mark)
    f.seek(at)
    f.write(b"T")
try:
    h.pread(4096, 8192)
    raise SystemExit("damage was not noticed")
except nbd.Error:
    pass
h.shutdown()
PY
next client-connected
next checksum-error volume=bad offset=8192
grep -q '"member":".*/d0"' <<<"$out" || die "nothing tells where: $out"
next client-disconnected

# as text; the end of the server is its end
timeout -k 5 60 "$TARN" pool events tank >text 2>text.err &
text=$!
for i in $(seq 200); do
    ok tarn volume create "tank/t$i" 1M
    ! grep -q 'volume-created  volume="t' text || break
    sleep 0.05
done
grep -Eq '^20[0-9-]+T[0-9:.]+Z  volume-created  volume="t[0-9]+"  size=1048576$' text || die "text: $(cat text)"
serve_end
! wait $text || die "events go on without a server"
grep -q '^tarn: the server has ended' text.err || die "not told: $(cat text.err)"
! wait $listener || die "events go on without a server"
echo "events: passed"
