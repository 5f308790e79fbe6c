#!/bin/bash
# tarn serve --takeover as its users see it: what is refused, and changes nothing; what goes along; commands, events and
# front ends that notice nothing; the pool that is never free for anybody else.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/takeover_common.sh"
. "$here/vhost_common.sh"
taker=$here/../vhost/taker.py
n_failed=0

# ---- refused, by wrong usage ----
for option in '--nbd unix:x' '--vhost-user x' '--control x' '--group root'; do
    # shellcheck disable=SC2086  # an option and its value
    fails 2 "goes on with the sockets of the server, so '${option%% *}' is not for it" tarn serve tank --takeover $option
done
fails 1 "no pool 'tank'" tarn serve tank --takeover

# ---- refused, as there is nobody, or others ----
ok tarn pool create tank d0 --file-size 256M
ok tarn pool create pond d1 --file-size 128M
ok tarn volume create tank/web 64M
ok tarn volume create tank/data 64M
fails 1 "pool 'tank' is not being served" tarn serve tank --takeover
grep -q "^hint: 'tarn serve' without --takeover" err || die "no hint at serve: $(cat err)"
serve_now pond
other=$server
serve_now tank
same "$(stat -c %a run/tank.control)" 600
stays fails 1 "pools 'tank' and 'pond' are not served by one process" tarn serve tank pond --takeover
stays fails 1 "'tank' is named twice" tarn serve tank d0 --takeover
stays fails 1 "cannot read|No such file" tarn serve tank --takeover --tls-psk nix
stays $python "$taker" run/tank.control tank refused "in another way"
stays $python "$taker" run/tank.control tank,pond refused "serves other pools than were named: tank"
stays $python "$taker" run/tank.control "" refused "serves other pools than were named: tank"
serve_end
server=$other
serve_end
serve_now tank pond
fails 1 "serves other pools than were named: tank pond" tarn serve tank --takeover
grep -q '^hint: name all the pools' err || die "no hint: $(cat err)"
stays true

# Who may use the socket by its group may not have all the server has.
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    serve_end
    chmod 711 "$work"
    serve_now tank pond --group daemon
    chmod 711 run
    same "$(stat -c '%a %G' run/tank.control)" "660 daemon"
    cp "$taker" taker.py
    chmod 644 taker.py
    stays setpriv --reuid 65534 --regid daemon --clear-groups $python taker.py run/tank.control tank,pond refused \
        "only the server's own user and root"
fi

# A client that does not take its answers: its command runs still.
cat >stubborn.py <<'PYTHON'
import os, socket, time
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
s.setblocking(False)
idle = 0
while idle < 20:
    try:
        s.send(b'{"command":"pool-status","pool":"tank"}\n' * 100)
        idle = 0
    except BlockingIOError:
        idle += 1
        time.sleep(0.05)
open("stubborn", "w")
while not os.path.exists("enough"):
    time.sleep(0.05)
PYTHON
$python stubborn.py &
stubborn=$!
server_pids+=("$stubborn")
wait_for stubborn
stays fails 1 "cannot take over: the server is busy with 'pool-status'" tarn serve tank pond --takeover
touch enough
wait $stubborn

# Requests that wait for space would have to be waited for.
ok tarn volume create pond/full 1G
ok tarn volume set pond/full on-full=wait
if $python -c 'import nbd' 2>/dev/null; then
    cat >fill.py <<'PYTHON'
import nbd
h = nbd.NBD()
h.set_export_name("pond/full")
h.connect_unix("run/pond.nbd")
try:
    for i in range(1024):
        h.pwrite(bytes([i % 255 + 1]) * (1 << 20), i << 20)
except nbd.Error:
    pass
PYTHON
    $python fill.py &
    filling=$! looks=0
    for _ in $(seq 600); do
        out=$($python -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
s.sendall(sys.stdin.buffer.read())
print(s.makefile().readline())' <<<'{"command":"stats","pool":"pond"}')
        # Some wait for a moment only, before it is really full.
        [ "$(json "['volumes'][0]['waiting_for_space']" 2>/dev/null || echo 0)" = 0 ] && looks=0 || looks=$((looks + 1))
        [ $looks -lt 20 ] || break
        sleep 0.05
    done
    stays fails 1 "pool 'pond' is full, and requests wait for space" tarn serve tank pond --takeover
    ok tarn volume delete pond/full --yes --force
    wait $filling
fi

# ---- what goes along ----
serve_end
serve_now tank pond --vhost-user vms
ok tarn volume attach tank/data --vhost-user data.sock --queues 3
wait_for vms/tank/web.sock
connect vms/tank/web.sock web
connect data.sock data
ls -i run/*.nbd run/*.control data.sock vms/tank/*.sock >inodes

# Commands, one after another, and none of them fails.
(until [ -e done ]; do
    "$TARN" volume list tank >/dev/null 2>list.err || touch list.failed
    "$TARN" pool list --json >/dev/null 2>list.err || touch list.failed
done) &
listing=$!
server_pids+=("$listing")

# Somebody who would have the disk if it were free for a moment.
cat >lock.py <<'PYTHON'
import fcntl, os, struct
fd = os.open("d0", os.O_RDWR)
n = 0
while not os.path.exists("done"):
    try:
        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
    except OSError:
        n += 1
        continue
    raise SystemExit("the pool was free after %d looks" % n)
print(n, "looks")
PYTHON
$python lock.py >lock.log 2>&1 &
locking=$!
server_pids+=("$locking")

mkfifo events
"$TARN" pool events --json tank >events 2>events.err &
listener=$!
server_pids+=("$listener")
exec 3<events
for _ in $(seq 60); do
    ok tarn volume create tank/probe 1M
    ok tarn volume delete --yes tank/probe
    ! read -r -t 1 out <&3 || break
done
while read -r -t 1 out <&3; do :; done

# A request of which one half is said before, and one after.
cat >halves.py <<'PYTHON'
import os, socket, time
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
s.sendall(b'{"command":"volume-li')
open("half", "w")
while not os.path.exists("taken"):
    time.sleep(0.05)
s.sendall(b'st","pool":"tank"}\n')
assert '"tank/web"' in s.makefile().readline()
PYTHON
$python halves.py &
halves=$!
wait_for half

# One so long that everybody would wait for it to be handed over: nothing of it has begun, and it is told to ask again.
cat >long.py <<'PYTHON'
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
s.settimeout(60)
s.sendall(b'{"command":"volume-list","pool":"' + b"x" * 300000)
open("long", "w")
answer = s.makefile().read()
assert '"code":"EAGAIN"' in answer and "ask again" in answer, answer
PYTHON
$python long.py &
long=$!
wait_for long

for round in 1 2 3; do
    take_over tank pond --threads $round
    $python "$taker" run/tank.control tank,pond handed
    n_failed=$((n_failed + 1))
    ok tarn volume create tank/new$round 1M
    wait_for vms/tank/new$round.sock
done
touch taken
wait $halves || die "a request in halves was not answered"
wait $long || die "half a request that is too long was not refused"
ok tarn volume resize tank/web 96M
wait_for_text web.capacity $((96 << 20))
ok tarn volume resize tank/data 80M
wait_for_text data.capacity $((80 << 20))
[ ! -e web.off ] && [ ! -e data.off ] || die "a front end was hung up on"
for round in 1 2 3; do
    read -r -t 60 out <&3 || die "no event: $(cat events.err)"
    same "$(json "['event']") $(json "['volume']")" "volume-created new$round"
done
touch done
wait $listing
[ ! -e list.failed ] || die "a command failed: $(cat list.err)"
wait $locking || die "$(cat lock.log)"
ls -i run/*.nbd run/*.control data.sock vms/tank/{data,web}.sock | diff inodes - || die "sockets were made anew"
ok tarn pool status tank --json
same "$(json "['server']['pid']")" "$server"
ok tarn volume show tank/data --json
# The folder's is the first, what was attached by name the last.
same "$(json "['attached'][-1]['queues']") $(json "['attached'][-1]['remembered']")" "3 True"
same "$(json "['attached'][-1]['clients'][0]['queues']")" 0
same "$(json "['attached'][0]['path']")" "$work/vms/tank/data.sock"

# Called off before the new server could say that it is ready: the old one serves, and the new one must not.
mv run/tank.control run/real.control
$python "$taker" run/real.control tank,pond between "$work/run/tank.control" &
between=$!
server_pids+=("$between")
wait_for run/tank.control
fails 1 "cannot take over: the server has called it off" tarn serve tank pond --takeover
wait $between || die "the server was not to go on"
n_failed=$((n_failed + 1))
mv run/real.control run/tank.control
kill -0 "$server" || die "the old server has ended"
ok tarn volume list tank
[ ! -e web.off ] && [ ! -e data.off ] || die "a front end was hung up on"

# Told to stop in the middle of one, a server stops, as if nobody had asked.
$python "$taker" run/tank.control tank,pond term "$server"
got=0
wait "$server" || got=$?
same "$got" 0 "exit status of a server that was told to stop"
wait_for web.off data.off
[ -z "$(find run vms -type s)" ] || die "a stopped server leaves sockets: $(find run vms -type s)"
rm data.sock # of the command that attached it

# Two at once: one after the other, or one of them is told so; somebody serves.
serve_now tank pond --vhost-user vms
wait_for data.sock
connect data.sock again
"$TARN" serve tank pond --takeover >two.log 2>&1 &
second=$!
"$TARN" serve tank pond --takeover >three.log 2>&1 &
third=$!
server_pids+=("$second" "$third")
wait "$server"
for _ in $(seq 600); do
    grep -q '^  control\|replaced already\|cannot take over' two.log &&
        grep -q '^  control\|replaced already\|cannot take over' three.log && break
    sleep 0.05
done
for _ in $(seq 600); do
    ok tarn pool status tank --json
    server=$(json "['server']['pid']")
    { [ "$server" = $second ] && ! kill -0 $third 2>/dev/null; } || { [ "$server" = $third ] &&
        ! kill -0 $second 2>/dev/null; } && break
    sleep 0.05
done
[ "$server" = $second ] || [ "$server" = $third ] || die "$server serves, and not $second or $third"
[ ! -e again.off ] || die "a front end was hung up on"
serve_end

# A service manager is told who the main process is, by the one that it knows, and that it is ready, by that one.
cat >manager.py <<'PYTHON'
import os, socket, struct
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("notify")
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.settimeout(60)
open("managing", "w")
with open("told", "w") as f:
    while not os.path.exists("enough2"):
        try:
            data, control, _, _ = s.recvmsg(4096, 256)
        except socket.timeout:
            break
        pid = struct.unpack_from("i", control[0][2])[0]
        print(pid, data.decode().split("\n")[0], file=f, flush=True)
PYTHON
$python manager.py &
manager=$!
server_pids+=("$manager")
wait_for managing
export NOTIFY_SOCKET=$work/notify
serve_now tank pond
first=$server
# one that is refused is not who the manager hears of
! "$TARN" serve tank --takeover >refused.log 2>&1 </dev/null || die "one pool of two is taken over"
take_over tank pond
unset NOTIFY_SOCKET
for _ in $(seq 600); do
    ! grep -q "^$server READY=1" told || break
    sleep 0.05
done
same "$(cat told)" "$first READY=1
$first MAINPID=$server
$server READY=1"
touch enough2
serve_end
wait $manager
