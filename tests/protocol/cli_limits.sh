#!/bin/bash
# Limits of a volume and its discards, as NBD clients meet them; what is set while they are connected counts at once.
set -eu
. "$(dirname "$0")/cli_common.sh"
$python -c 'import nbd' 2>/dev/null || skip "no Python module of libnbd"

ok tarn pool create tank d0 --file-size 256M
ok tarn volume create tank/web 64M
serve_now tank
uri="nbd+unix:///tank/web?socket=$work/run/tank.nbd"
now_ms() {
    echo $(($(date +%s%N) / 1000000))
}
# N writes of 4 KiB, all at once, awaited
cat >write.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
n = int(sys.argv[2])
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(4096)), i * 4096) for i in range(n)]
while h.aio_in_flight() > 0:
    h.poll(-1)
for c in cookies:
    assert h.aio_command_completed(c)
try:
    h.shutdown()
except nbd.Error: # a server that ends hangs up after its last answer, perhaps before this goodbye
    pass
PY
write() { # N: in the background, its pid in $writer
    $python write.py "$uri" "$1" 2>writer.err &
    writer=$!
    server_pids+=("$writer")
}

# 40 operations at 20 a second, of which 2 may go at once
ok tarn volume set tank/web iops=20
begin=$(now_ms)
write 40
wait $writer || die "writes under a limit failed: $(cat writer.err)"
took=$(($(now_ms) - begin))
[ $took -ge 1800 ] || die "40 writes at 20 a second took $took ms"

# a limit that would last for an hour is lifted under those that wait
ok tarn volume set tank/web iops= bandwidth=4K bandwidth-burst=4K
begin=$(now_ms)
write 100
waiting() {
    [ "$(echo '{"command":"stats","pool":"tank"}' | timeout 20 $python -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
reply = json.loads(s.makefile().readline())
print(sum(v["throttle"]["waiting"] for v in reply["volumes"] if v["name"] == "tank/web"))' run/tank.control)" -gt "$1" ]
}
until_waiting() {
    for _ in $(seq 400); do
        ! waiting "$1" || return 0
        sleep 0.05
    done
    die "nobody waits for the limit"
}
until_waiting 50
kill -0 $writer 2>/dev/null || die "100 writes at one a second are done already"
ok tarn volume set tank/web bandwidth=none bandwidth-burst=
wait $writer || die "writes whose limit was lifted failed"

# snapshots wait for nobody who waits for a limit; a client that has gone is not waited for, and one that is cut off is cut off
ok tarn volume set tank/web iops=1
write 100
until_waiting 50
ok tarn snapshot create tank/web@meanwhile
fails 1 "in use" tarn volume delete tank/web --snapshots --yes
kill -KILL $writer
wait $writer || true
begin=$(now_ms)
while [ "$(tarn volume show --json tank/web | grep -c 'unix pid')" != 0 ]; do
    [ $(($(now_ms) - begin)) -lt 20000 ] || die "a client that was killed is still there"
    sleep 0.05
done
write 100
until_waiting 50
begin=$(now_ms)
ok tarn volume delete tank/web --snapshots --yes --force
[ $(($(now_ms) - begin)) -lt 40000 ] || die "a client that waits for a limit was not cut off"
! wait $writer || die "a client that was cut off has noticed nothing"

# at the server's stop who waits for a limit is let go: they would take more than a minute and a half otherwise
ok tarn volume create tank/web 64M
ok tarn volume set tank/web iops=1
write 100
until_waiting 95
begin=$(now_ms)
serve_end
wait $writer || die "writes that waited for a limit failed at the server's stop: $(cat writer.err)"
[ $(($(now_ms) - begin)) -lt 60000 ] || die "a limit held up the server's stop"

# discard=off
ok tarn volume set tank/web iops=0 discard=off
serve_now tank
timeout 60 $python - "$uri" "$work/run/tank.nbd" <<'PY' || die "discard=off"
import nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
assert not h.can_trim()
h.set_strict_mode(0)
h.pwrite(bytearray(b"x" * 8192), 0)
h.trim(8192, 0)
assert h.pread(8192, 0) == b"x" * 8192
h.zero(8192, 0)
assert h.pread(8192, 0) == bytes(8192)
h.shutdown()
PY
ok tarn volume set tank/web discard=on
timeout 60 $python - "$uri" <<'PY' || die "discard=on"
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
assert h.can_trim()
h.pwrite(bytearray(b"x" * 8192), 0)
h.trim(8192, 0)
assert h.pread(8192, 0) == bytes(8192)
h.shutdown()
PY
serve_end

# on-full=wait: a writer waits, and goes on when a volume is deleted
ok tarn pool create small s0 --file-size 64M
ok tarn volume create small/data 1G
ok tarn volume create small/web 64M
serve_now small
cat >fill.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
at = 0
for size in (1 << 20, 4096):
    try:
        while True:
            h.pwrite(b"x" * size, at)
            at += size
    except nbd.Error as e:
        assert e.errno == "ENOSPC", e
print("full")
h.shutdown()
PY
same "$(timeout 100 $python fill.py "nbd+unix:///small/data?socket=$work/run/small.nbd")" full
same "$(timeout 100 $python fill.py "nbd+unix:///small/web?socket=$work/run/small.nbd")" full
ok tarn volume set small/web on-full=wait
uri="nbd+unix:///small/web?socket=$work/run/small.nbd"
until_short() {
    for _ in $(seq 400); do
        n=$(echo '{"command":"stats","pool":"small"}' | timeout 20 $python -c '
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.stdin.buffer.read())
print(sum(v["waiting_for_space"] for v in json.loads(s.makefile().readline())["volumes"]))' run/small.control)
        [ "$n" = 0 ] || return 0
        sleep 0.05
    done
    die "nobody waits for space"
}
write 50
until_short
ok tarn snapshot create small/web@full
kill -0 $writer 2>/dev/null || die "the writer has not waited"
ok tarn volume delete small/data --yes
wait $writer || die "the writer that waited has failed: $(cat writer.err)"

# at the server's stop who waits for space gets no answer: one that connects again asks the next server
same "$(ok tarn volume create small/data 1G; timeout 100 $python fill.py "nbd+unix:///small/data?socket=$work/run/small.nbd")" full
write 50
until_short
serve_end
! wait $writer || die "a writer that found no space has succeeded"
! grep -q ENOSPC writer.err || die "a writer that was to wait for space was told that there is none"
echo "limits: passed"
