#!/bin/bash
# NBD clients while one server follows another: those that connect again, as QEMU with reconnect-delay, go on without an
# error; nobody who connects finds nobody, on Unix sockets and on TCP; what was answered is there.
set -eu
. "$(dirname "$0")/cli_common.sh"
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/takeover_common.sh"

for tool in qemu-img qemu-io; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done
$python -c 'import nbd' 2>/dev/null || skip "python3 has no module nbd"

ok tarn pool create tank d0 --file-size 512M
ok tarn volume create tank/bench 64M
ok tarn volume create tank/asked 64M
serve_now tank --nbd "unix:$work/nbd.sock" --nbd tcp:127.0.0.1:0
port=$(sed -n 's,.*nbd://127.0.0.1:\([0-9]*\)$,\1,p' serve.tank.log)
[ -n "$port" ] || die "no port"

# Who connects, all the time, until the file 'done' is there: never refused, and served or hung up on.
cat >connect.py <<'PYTHON'
import os, socket, sys
refused = served = hung_up = 0
port = int(sys.argv[1])
while not os.path.exists("done"):
    for family, address in ((socket.AF_UNIX, "nbd.sock"), (socket.AF_INET, ("127.0.0.1", port))):
        with socket.socket(family) as s:
            s.settimeout(30)
            try:
                s.connect(address)
            except OSError as e:
                print("refused:", address, e)
                refused += 1
                continue
            try:
                greeting = s.recv(18)
            except ConnectionResetError:
                greeting = b""
            served += greeting.startswith(b"NBDMAGIC")
            hung_up += not greeting
print(served, "served,", hung_up, "hung up on")
sys.exit(1 if refused or not served else 0)
PYTHON
$python connect.py "$port" >connect.log 2>&1 &
connecting=$!
server_pids+=("$connecting")

# What a client writes and is answered is there; whoever is not answered learns that the connection has ended.
cat >ask.py <<'PYTHON'
import errno, nbd, os, sys, time
n_lost = n_answered = n_connections = 0
at, last = 0, {}
size = 64 << 20
while not os.path.exists("done"):
    h = nbd.NBD()
    h.set_export_name("tank/asked")
    try:
        h.connect_unix("nbd.sock")
    except nbd.Error:
        time.sleep(0.01)
        continue
    n_connections += 1
    try:
        for offset, value in last.items():
            assert h.pread(4096, offset) == bytes([value]) * 4096, offset
        last = {}
        while not os.path.exists("done"):
            flights = []
            for _ in range(16):
                value = at % 251 + 1
                flights.append((h.aio_pwrite(bytes([value]) * 4096, at * 4096 % size), at * 4096 % size, value))
                at += 1
            for cookie, offset, value in flights:
                while not h.aio_command_completed(cookie):
                    h.poll(-1)
                last[offset] = value
                n_answered += 1
            if len(last) > 256:
                last = dict(list(last.items())[-64:])
    except nbd.Error as e:
        assert e.errno != "ESHUTDOWN", e
        n_lost += 1
print(n_answered, "answered on", n_connections, "connections")
assert n_answered > 0
PYTHON
$python ask.py >ask.log 2>&1 &
asking=$!
server_pids+=("$asking")

qemu-img bench -w -c 60000 -d 16 -s 4096 --pattern=165 --image-opts \
    "driver=nbd,server.type=unix,server.path=$work/nbd.sock,export=tank/bench,reconnect-delay=60" >bench.log 2>&1 &
bench=$!
server_pids+=("$bench")
for _ in 1 2 3; do
    sleep "0.$((RANDOM % 400 + 100))" # a random moment is what is wanted
    kill -0 $bench 2>/dev/null || break
    take_over tank
done
[ $n_takeovers -ge 1 ] || die "it was all over before the first takeover"
wait $bench || die "QEMU had an error after $n_takeovers takeovers"
touch done
wait $asking || die "a client of libnbd: $(cat ask.log)"
wait $connecting || die "who connected found nobody"
out=$(qemu-io -r -f raw -c 'read -P 165 0 64M' "nbd+unix:///tank/bench?socket=$work/nbd.sock")
grep -q '^read 67108864/67108864' <<<"$out" || die "it cannot be read: $out"
! grep -q 'verification failed' <<<"$out" || die "not all that QEMU wrote is there"
cat ask.log connect.log
same "$(sed -n 's,.*nbd://127.0.0.1:\([0-9]*\)$,\1,p' take.$n_takeovers.log)" "$port"
serve_end
[ ! -e nbd.sock ] || die "the last server leaves its socket"
