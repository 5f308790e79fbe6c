#!/bin/bash
# The server: sockets, names of exports, clients in use, a second server, a killed one, rubbish on the control socket.
set -eu
. "$(dirname "$0")/cli_common.sh"
command -v nbdinfo >/dev/null || skip "nbdinfo (libnbd-bin) is not installed"

tarn_without_stdout() { tarn "$@" >&-; }

uri() { echo "nbd+unix:///$1?socket=$work/run/tank.nbd"; }

ok tarn pool create tank d0 d1 --file-size 256M
ok tarn volume create tank/web 64M
serve_now tank
same "$(stat -c %a run/tank.nbd)" 600
same "$(stat -c %a run/tank.control)" 600
grep -q 'run/tank.nbd' serve.tank.log || die "the server does not say where it serves"
ok tarn pool status --json tank
same "$(json "['server']['pid']")" "$server"

# names: POOL/VOL, VOL, and nothing for the only volume; snapshots read-only
for name in tank/web web ''; do
    same "$(nbdinfo --size "$(uri "$name")")" $((64 << 20)) "size of export '$name'"
done
ok tarn snapshot create tank/web@s
nbdinfo --json "$(uri tank/web@s)" | grep -q '"is_read_only": true' || die "a snapshot is writable"
nbdinfo --json "$(uri web@s)" >/dev/null
nbdinfo "$(uri web)" | grep -q 'description: volume, 64.0 MiB' || die "a volume opened is not described"
nbdinfo "$(uri web@s)" | grep -q 'description: snapshot, 64.0 MiB' || die "a snapshot opened is not described"
nbdinfo --list "$(uri '')" | grep -q '^export="tank/web@s":' || die "snapshots are not listed"
ok tarn volume create tank/two 1M
! nbdinfo --size "$(uri '')" 2>/dev/null || die "the empty name stands for one of two volumes"
! nbdinfo --size "$(uri nix)" 2>/dev/null || die "an export that is not there was opened"
ok tarn volume resize tank/two 2M
same "$(nbdinfo --size "$(uri two)")" $((2 << 20))

# whoever only asks what there is stands in nobody's way
while [ ! -e asked ]; do nbdinfo --list "$(uri '')" >/dev/null 2>&1 || true; done &
asker=$!
for i in $(seq 10); do
    ok tarn volume create tank/brief 1M
    ok tarn volume delete tank/brief --yes
done
touch asked
wait $asker

# a second server, and what needs the pool closed, are refused with the server's name
fails 1 "already being served, by process $server" tarn serve tank
fails 1 "already being served" tarn serve d1
fails 1 "being served by process $server" tarn pool destroy --yes tank
fails 1 "being served by process $server" tarn pool forget tank
fails 1 "in use by process $server" tarn pool create other d0 --force

# in use: refused with the client's name, --force cuts it off
client() { # a client that holds an export until it is cut off or told to end
    $python - "$1" "$work/$2" <<'P' &
import nbd, sys, time
h = nbd.NBD()
h.connect_uri(sys.argv[1])
open(sys.argv[2] + ".on", "w")
for _ in range(600):
    try:
        h.pread(512, 0)
    except nbd.Error:
        break
    time.sleep(0.05)
open(sys.argv[2] + ".off", "w")
P
    pid=$!
    server_pids+=("$pid")
    for _ in $(seq 600); do
        [ ! -e "$work/$2.on" ] || return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}
if $python -c 'import nbd' 2>/dev/null; then
    client "$(uri tank/web)" c1 || die "the client did not connect"
    fails 1 "in use by NBD client" tarn volume delete --yes --snapshots tank/web
    fails 1 "in use by NBD client" tarn snapshot restore tank/web@s
    fails 1 "in use by NBD client" tarn volume resize --yes tank/web 1M
    # what would be refused anyway is not asked about
    fails 1 "in use by NBD client" tarn volume delete --snapshots tank/web
    fails 1 "in use by NBD client" tarn volume resize tank/web 1M
    fails 1 "in use by NBD client" tarn snapshot restore --discard-current tank/web@s
    fails 1 "needs a yes" tarn volume delete --snapshots --force tank/web
    ok tarn volume resize tank/web 128M
    ok tarn snapshot create tank/web@in-use
    ok tarn volume clone tank/web@in-use tank/cloned
    ok tarn image export tank/web live.raw
    ok tarn snapshot list --json tank/web
    same "$(json "['snapshots'].__len__()")" 2 "the export's own snapshot is gone"
    ok tarn pool status --json tank
    same "$(json "['server']['clients'][0]['export']")" tank/web
    ok tarn snapshot restore --force tank/web@s
    wait "$pid" || true
    [ -e c1.off ] || die "the client was not cut off"
    # who uses a volume that was renamed is no user of the next one of that name
    ok tarn volume create tank/first 1M
    client "$(uri tank/first)" renamed || die "the client did not connect"
    renamed=$pid
    ok tarn volume rename tank/first tank/old
    ok tarn volume create tank/first 1M
    ok tarn pool status --json tank
    same "$(json "['server']['clients'][0]['export']")" tank/old
    client "$(uri tank/first)" next || die "the client did not connect"
    fails 1 "in use by NBD client unix pid $renamed\$" tarn volume delete --yes tank/old
    ok tarn volume delete --yes --force tank/old
    wait "$renamed" || true
    fails 1 "in use by NBD client unix pid $pid\$" tarn volume delete --yes tank/first
    [ ! -e next.off ] || die "a client of another volume was cut off"
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    ok tarn volume delete --yes --force tank/first
    # a reader of a snapshot is no user of the volume
    client "$(uri tank/web@s)" c2 || die "the client did not connect"
    ok tarn volume resize --yes tank/web 32M
    kill "$pid"
else
    echo "without python3-libnbd the part on clients is left out"
fi

# rubbish on the control socket is answered or dropped, and the server lives
$python - <<'P'
import json, os, socket
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(os.environ["TARN_RUNTIME_DIR"] + "/tank.control")
    return s, s.makefile("rb")
def ask(line):
    s, f = connect()
    s.sendall(line + b"\n")
    return json.loads(f.readline())
for line in [b"rubbish", b"[]", b"{}", b"\xff\xfe", b'{"command":5}', b'{"command":"x","pool":"tank"}',
             b'{"command":"volume-create","pool":"tank","volume":"../x","size":512}',
             b'{"command":"volume-create","pool":"tank","volume":"x","size":-512}',
             b'{"command":"volume-create","pool":"tank","volume":"x","size":1e300}',
             b'{"command":"image-import","pool":"tank","volume":"x"}',
             b'{"command":"pool-add","pool":"tank","paths":["/etc/passwd"]}',
             b'{"command":"volume-list","pool":"nix"}', b'{"a":' * 3000]:
    reply = ask(line)
    assert reply["error"]["code"] and reply["error"]["message"], (line, reply)
# a line without end is dropped at its limit
s, f = connect()
try:
    while True:
        s.sendall(b"x" * 65536)
except OSError:
    pass
# hanging up in the middle of everything
for line in [b'{"command":"pool-check","pool":"tank"}\n', b'{"comm', b""]:
    s, f = connect()
    s.sendall(line)
    s.close()
# many clients at a time: the last ones are told, nobody waits
socks = [connect() for _ in range(80)]
refused = json.loads(socks[-1][1].readline())
assert "clients" in refused["error"]["message"], refused
for s, f in socks:
    f.close(); s.close()
# two requests in one go are two replies
while True: # until the server has seen those hang up
    s, f = connect()
    try:
        s.sendall(b'{"command":"volume-list","pool":"tank"}\n{"command":"pool-status","pool":"tank"}\n')
        first = json.loads(f.readline())
    except OSError:
        continue
    if "clients" not in first.get("error", {}).get("message", ""):
        break
assert first["ok"] and json.loads(f.readline())["ok"]
P
ok tarn volume list tank

# a clean stop takes its sockets away and is seen
serve_end
[ ! -e run/tank.nbd ] && [ ! -e run/tank.control ] || die "a server that ended left its sockets"
ok tarn pool status --json tank
same "$(json "['server']")" null

# killed: what it leaves behind stands in nobody's way
serve_now tank
kill -KILL "$server"
wait "$server" 2>/dev/null || true
[ -S run/tank.nbd ] || die "this test expects a stale socket"
ok tarn volume list tank
serve_now tank
same "$(nbdinfo --size "$(uri two)")" $((2 << 20))
serve_end

# started with closed streams: no file takes their place, so that no message gets into a disk
"$TARN" serve tank <&- >&- 2>&- &
server=$!
server_pids+=("$server")
for _ in $(seq 600); do
    [ ! -S run/tank.control ] || break
    sleep 0.05
done
for fd in 0 1 2; do
    same "$(readlink "/proc/$server/fd/$fd")" /dev/null "descriptor $fd"
done
ok tarn volume list tank
serve_end
fails 1 "cannot write the output" tarn_without_stdout volume list tank

# many may come at once: they wait until the server gets to them
serve_now tank
kill -STOP "$server"
$python - "$server" <<'P'
import os, signal, socket, sys
socks = []
n = min(500, int(open("/proc/sys/net/core/somaxconn").read()))
try:
    for i in range(n):
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        s.connect(os.environ["TARN_RUNTIME_DIR"] + "/tank.nbd")
        socks.append(s)
finally:
    os.kill(int(sys.argv[1]), signal.SIGCONT)
for s in socks: # 64 negotiate at a time
    s.settimeout(30)
    assert len(s.recv(18, socket.MSG_WAITALL)) == 18
    s.close()
P
serve_end

# interrupted while the server does not answer: a command ends at once, and the server does not begin it afterwards
asking() { # COMMAND...: it runs and waits for the server
    # SIGINT is ignored by what a script has in the background, until something else is said
    $python -I -S -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])' "$TARN" "$@" >/dev/null 2>err &
    pid=$!
    server_pids+=("$pid")
    for _ in $(seq 600); do # until it watches for SIGINT and SIGTERM
        ! grep -q '^SigBlk:.*4002$' "/proc/$pid/status" || break
        sleep 0.05
    done
}
ends() { # STATUS: soon, with it
    for _ in $(seq 100); do
        ! grep -q '^State:.[^Z]' "/proc/$pid/status" 2>/dev/null || { sleep 0.05; continue; }
        got=0
        wait "$pid" 2>/dev/null || got=$?
        same "$got" "$1" "status of a command that was interrupted"
        return
    done
    die "a command does not end when it is interrupted"
}
serve_now tank
kill -STOP "$server"
for signal in INT TERM; do
    asking volume create tank/late 1M
    kill "-$signal" "$pid"
    ends 1
    grep -qx 'tarn: interrupted; the server has not begun, as it does not answer' err || die "it says '$(cat err)'"
done
kill -CONT "$server"
fails 1 "late" tarn volume show tank/late
# a server that has taken the request is waited for, until a second signal
kill -KILL "$server"
wait "$server" 2>/dev/null || true
$python -I -S - "$work/run/tank.control" <<'P' &
import os, socket, sys
os.unlink(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
open("listening", "w")
c = s.accept()[0]
c.recv(65536)
open("taken", "w")
c.recv(65536)
open("hung-up", "w")
s.accept()
P
fake=$!
server_pids+=("$fake")
until_there() {
    for _ in $(seq 600); do
        [ ! -e "$1" ] || return 0
        sleep 0.05
    done
    die "there is no '$1'"
}
until_there listening
asking volume list tank
until_there taken
kill -TERM "$pid"
until_there hung-up
kill -TERM "$pid"
ends 143
kill "$fake"
wait "$fake" 2>/dev/null || true
# one that ends before it has read the request has not begun: the command is done without it
$python -I -S - "$work/run/tank.control" <<'P' &
import os, select, socket, sys
os.unlink(sys.argv[1])
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
open("listening-again", "w")
c = s.accept()[0]
select.select([c], [], [])
s.close()
c.close()
P
fake=$!
server_pids+=("$fake")
until_there listening-again
ok tarn volume list tank
wait "$fake"

# a volume is deleted while clients are about to open it: by a new server, which has to read it first
cat >deletes.py <<'P'
import json, os, socket, sys
run = os.environ["TARN_RUNTIME_DIR"]
control = socket.socket(socket.AF_UNIX)
control.connect(run + "/tank.control")
replies = control.makefile("rb")
def ask(command, name, **more):
    request = dict(command=command, pool="tank", volume=name, **more)
    control.sendall(json.dumps(request).encode() + b"\n")
for i in range(40):
    name = f"opened{i}"
    if sys.argv[1] == "create":
        ask("volume-create", name, size=1 << 20)
    else:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(run + "/tank.nbd")
        assert len(s.recv(18, socket.MSG_WAITALL)) == 18
        export = b"tank/" + name.encode()
        data = len(export).to_bytes(4, "big") + export + b"\0\0"
        go = b"IHAVEOPT\0\0\0\7" + len(data).to_bytes(4, "big") + data
        s.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\x08\0\0\0\0") # a reply says that the server waits for the next option
        assert len(s.recv(20, socket.MSG_WAITALL)) == 20
        s.sendall(go)
        ask("volume-delete", name, force=True)
    reply = json.loads(replies.readline())
    assert reply.get("ok"), (name, reply)
P
serve_now tank
ok $python deletes.py create
serve_end
serve_now tank
ok $python deletes.py delete
serve_end

# few descriptors: NBD clients cannot take those that commands need
soft=$(ulimit -Sn)
ulimit -Sn 64 # raised again by the server itself
serve_now tank
ulimit -Sn "$soft"
limits=$(grep 'open files' "/proc/$server/limits")
same "$(awk '{ print $4 }' <<<"$limits")" "$(awk '{ print $5 }' <<<"$limits")" "descriptors that the server may open"
serve_end
(ulimit -n 64 && exec "$TARN" serve tank >serve.tank.log 2>&1 </dev/null) &
server=$!
server_pids+=("$server")
for _ in $(seq 600); do
    ! grep -q '^  control' serve.tank.log || break
    sleep 0.05
done
$python - <<'P' &
import os, socket, time
kept = []
for i in range(200):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(os.environ["TARN_RUNTIME_DIR"] + "/tank.nbd")
    try:
        if len(s.recv(18, socket.MSG_WAITALL)) < 18:
            break
        # GO, so that it is no longer one of those who negotiate
        s.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\x09\0\0\0\3two\0\0")
        s.recv(20)
    except OSError:
        break
    kept.append(s)
open("full", "w").write(str(len(kept)))
time.sleep(600)
P
filler=$!
server_pids+=("$filler")
for _ in $(seq 600); do
    [ ! -s full ] || break
    sleep 0.05
done
[ "$(cat full)" -ge 16 ] && [ "$(cat full)" -le 60 ] || die "$(cat full) connections were served"
ok timeout -k 5 20 "$TARN" volume list tank
ok timeout -k 5 20 "$TARN" volume delete --yes --force tank/two
kill "$filler"
wait "$filler" 2>/dev/null || true
ok tarn volume create tank/two 2M
serve_end

# where to listen
serve_now tank --nbd unix:here.sock --nbd tcp:127.0.0.1:0 --control ctl.sock --group "$(id -gn)"
same "$(stat -c %a here.sock)" 660
same "$(stat -c %a ctl.sock)" 660
port=$(grep -o 'nbd://127.0.0.1:[0-9]*' serve.tank.log)
same "$(nbdinfo --size "$port/tank/two")" $((2 << 20))
same "$(nbdinfo --size "nbd+unix:///two?socket=$work/here.sock")" $((2 << 20))
[ ! -e run/tank.nbd ] || die "the default socket is there beside those asked for"
(cd / && ok tarn volume show tank/two)
serve_end
if $python -I -S -c 'import socket; socket.socket(socket.AF_INET6).bind(("::1", 0))' 2>/dev/null; then
    serve_now tank --nbd 'tcp:[::1]:0'
    ! grep -q 'open to other hosts' serve.tank.log || die "the loopback address is told to be open to others"
    port=$(grep -o 'nbd://\[::1\]:[0-9]*' serve.tank.log) || die "the server does not say where it serves"
    same "$(nbdinfo --size "$port/tank/two")" $((2 << 20)) "size by IPv6"
    ok tarn pool status --json tank
    same "$(json "['server']['nbd'][0]")" "$port"
    serve_end
else
    echo "without ::1 on this machine the part on IPv6 is left out"
fi
fails 1 "not an address" tarn serve tank --nbd here.sock
fails 1 "not an address" tarn serve tank --nbd tcp:12345
fails 1 "no group" tarn serve tank --group no-such-group
: >file
fails 1 "no port" tarn serve tank --nbd tcp:127.0.0.1:99999
fails 1 "no port" tarn serve tank --nbd tcp:127.0.0.1:nbd
fails 1 "not an address" tarn serve tank --nbd tcp:::1:10809
fails 1 "not an address" tarn serve tank --nbd 'tcp:[::1]'
fails 1 "no port" tarn serve tank --nbd 'tcp:[::1]:nbd'
fails 1 "path of a socket is empty" tarn serve tank --nbd unix:
fails 1 "path of a socket is empty" tarn serve tank --control ''
fails 1 "named twice" tarn serve tank tank
fails 1 "named twice" tarn serve tank d1
fails 1 "not a socket" tarn serve tank --nbd unix:file
fails 1 "too long" tarn serve tank --nbd "unix:$(printf 'x%.0s' $(seq 120))"
fails 1 "cannot make the socket" tarn serve tank --nbd unix:no/such/folder/s
fails 1 "no pool 'nix'" tarn serve nix
ok tarn volume list tank

# several pools in one server
ok tarn pool create second e0 --file-size 64M
ok tarn volume create second/web 3M
serve_now tank
fails 1 "already being served" tarn serve second tank
serve_end
serve_now tank second
same "$(nbdinfo --size "$(uri second/web)")" $((3 << 20))
! nbdinfo --size "$(uri web)" 2>/dev/null || die "a name that two pools have was opened"
same "$(nbdinfo --size "$(uri two)")" $((2 << 20))
ok tarn volume list --json
same "$(json "['volumes'][-1]['name']")" tank/web
serve_end
ok tarn pool check tank --data

# what is being imported, or was when its server was killed, is no volume yet: the only one stays the only one
ok tarn pool create third f0 --file-size 512M
ok tarn volume create third/web 3M
head -c 100M /dev/urandom >slow.raw
third() { echo "nbd+unix:///$1?socket=$work/run/third.nbd"; }
left=
for _ in 1 2 3 4 5; do
    serve_now third
    "$TARN" image import slow.raw third/slow >/dev/null 2>&1 &
    pid=$!
    for _ in $(seq 200); do
        ok tarn volume list third
        ! grep -q 'slow.importing' <<<"$out" || break
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    ok tarn volume list third
    ! grep -q 'slow.importing' <<<"$out" || { left=yes; break; }
    ! grep -q 'third/slow' <<<"$out" || ok tarn volume delete --yes third/slow
done
if [ -n "$left" ]; then
    serve_now third
    same "$(nbdinfo --size "$(third '')")" $((3 << 20)) "size of the only volume beside an import"
    ! nbdinfo --list "$(third '')" | grep importing || die "an import is listed as an export"
    ! nbdinfo --size "$(third slow.importing)" 2>/dev/null || die "an import is an export by its volume's name"
    nbdinfo --size "$(third third/slow.importing)" >/dev/null
    serve_end
else
    echo "no import was caught under way: that part is left out"
fi
echo "serve: passed"
