#!/bin/bash
# Attachments that are not remembered, as 'tarn vm' asks for them, and servers that end when nobody uses them any more.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/vhost_common.sh"

# passing VOLUME SOCKET [JSON]: as a virtual machine attaches; prints the server's answer.
cat >attach.py <<'END'
import array, json, os, socket, sys
control, volume, path = sys.argv[1:4]
if os.path.exists(path):
    os.unlink(path)
listening = socket.socket(socket.AF_UNIX)
listening.bind(path)
listening.listen()
s = socket.socket(socket.AF_UNIX)
s.connect(control)
request = {"command": "volume-attach", "pool": "tank", "volume": volume, "path": os.path.abspath(path), "remember": False}
request.update(json.loads(sys.argv[4]) if len(sys.argv) > 4 else {})
s.sendmsg([json.dumps(request).encode() + b"\n"],
          [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listening.fileno()]))])
print(s.makefile().readline().strip())
END
passing() {
    $python attach.py "$work/run/tank.control" "$@"
}

# until nobody is attached to tank/web
wait_detached() {
    for _ in $(seq 200); do
        ok tarn volume show tank/web --json
        [ "$(json "['attached']")" != "[]" ] || return 0
        sleep 0.05
    done
    die "still attached: $out"
}

wait_ended() { # PID
    for _ in $(seq 400); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.05
    done
    die "process $1 has not ended"
}

ok tarn pool create tank d0 --file-size 256M
ok tarn volume create tank/web 64M
ok tarn snapshot create tank/web@s
serve_now tank

grep -q '"ok":true' <<<"$(passing web web.sock '{"serial":"12345", "machine":"web-1"}')" || die "not attached"
grep -q "EBUSY.*machine 'web-1', which is starting" <<<"$(passing web two.sock)" || die "two machines that write have it"
grep -q EINVAL <<<"$(passing web two.sock '{"serial":"123456789012345678901"}')" || die "the serial is too long"
grep -q EINVAL <<<"$(passing web two.sock '{"serial":"1", "remember":true}')" || die "a serial is remembered"
grep -q EINVAL <<<"$(passing web two.sock '{"machine":"web", "remember":true}')" || die "a machine is remembered"
for name in '""' '"a b"' 7; do
    grep -q EINVAL <<<"$(passing web two.sock "{\"machine\":$name}")" || die "a machine is named $name"
done
grep -q '"ok":true' <<<"$(passing web@s snap.sock '{"readonly":true}')" || die "a snapshot is not attached"
connect web.sock web
ok tarn volume show tank/web --json
same "$(json "['attached'][0]['remembered']")" "False"
same "$(json "['users']")" 1
shown() {
    ok tarn volume show tank/web
    grep -q "^in use by    machine 'web-1' (pid $pid)" <<<"$out" || die "in use by whom? $out"
    grep -q "connected: machine 'web-1' pid $pid$" <<<"$out" || die "who is connected? $out"
}
shown
ok tarn volume show tank/web --json
same "$(json "['attached'][0]['machine']")" web-1
fails 1 "in use by machine 'web-1' [(]pid $pid[)]" tarn volume delete tank/web --snapshots --yes
grep -q "in use by machine 'web-1' (pid $pid)" <<<"$(passing web two.sock)" || die "two machines that write have it"
grep -q '"ok":true' <<<"$(passing web two.sock '{"readonly":true}')" || die "one that only reads is refused"
writer=$pid
connect two.sock two
ok tarn volume show tank/web
grep -q "^in use by    machine 'web-1' (pid $writer), vhost-user front end pid $pid$" <<<"$out" || die "in use by whom? $out"
kill -KILL "$pid"

# another server goes on with it
"$TARN" serve tank --takeover >takeover.log 2>&1 </dev/null &
server=$!
server_pids+=("$server")
for _ in $(seq 200); do
    ! grep -q '^  control' takeover.log || break
    sleep 0.05
done
ok tarn volume show tank/web --json
same "$(json "['attached'][0]['clients'][0]['pid']")" "${server_pids[1]}"
pid=$writer shown

# killed, it leaves nothing behind
kill -KILL "${server_pids[1]}"
wait_detached
# Who only reads keeps out nobody, whoever comes first: as after a server that was killed.
grep -q '"ok":true' <<<"$(passing web two.sock '{"readonly":true}')" || die "not attached again"
connect two.sock again
grep -q '"ok":true' <<<"$(passing web web.sock)" || die "one that writes is refused for one that reads"
grep -q EBUSY <<<"$(passing web three.sock)" || die "two that write, behind one that reads"
kill -KILL "$pid"
ok tarn volume detach tank/web

# a machine that comes back gets what it had, or nothing
identity() {
    $python -c 'import json, sys; print(json.load(sys.stdin)["identity"])'
}
comes_back() {
    passing web web.sock "{\"identity\":\"$had\"}"
}
wait_detached
tarn volume detach tank/web@s 2>err || true # nobody has connected to it, so it may have ended
had=$(passing web web.sock | identity)
ok tarn volume detach tank/web
ok tarn snapshot create tank/web@t
same "$(comes_back | identity)" "$had"
fails 1 "'tank/web' is a disk of a virtual machine, which finds it by that name" tarn volume rename tank/web www
ok tarn volume detach tank/web
ok tarn volume rename tank/web www
ok tarn volume clone tank/www@s tank/web
grep -q "ESTALE.*'tank/web' is the name of another volume by now" <<<"$(comes_back)" || die "it gets another volume"
ok tarn volume delete tank/web --yes
ok tarn volume rename tank/www web
same "$(comes_back | identity)" "$had"
# also when it has not connected yet
ok tarn snapshot restore tank/web@s
$python -c 'import socket
s = socket.socket(socket.AF_UNIX)
s.connect("web.sock")
try:
    s.send(bytes([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
    assert s.recv(1) == b"", "a front end is answered"
except (BrokenPipeError, ConnectionResetError):
    pass' || die "it gets what the volume held at another time"
grep -q "ESTALE.*'tank/web' was taken back to a snapshot" <<<"$(comes_back)" ||
    die "it gets what the volume held at another time"
ok tarn volume detach tank/web
had=$(passing web@s web.sock '{"readonly":true}' | identity)
fails 1 "'tank/web@s' is a disk of a virtual machine" tarn volume rename tank/web www
ok tarn volume detach tank/web@s
ok tarn snapshot delete tank/web@s --yes
ok tarn snapshot create tank/web@s
grep -q "ESTALE.*'tank/web@s' is the name of another snapshot" \
    <<<"$(passing web@s web.sock "{\"readonly\":true, \"identity\":\"$had\"}")" || die "it gets another snapshot"
for wrong in "{\"identity\":\"$(printf %064d 0)\"}" '{"identity":7}' '{"identity":"1", "remember":true}'; do
    grep -q EINVAL <<<"$(passing web web.sock "$wrong")" || die "it takes $wrong"
done
kill -TERM "$server"
wait_ended "$server"
! grep -q attachments state/tank.json || die "an attachment is remembered"

# a server that lives as long as it is used
serve_now tank --while-used
passing web web.sock >/dev/null
connect web.sock three
sleep 4
kill -0 "$server" || die "the server has ended while it was used"
grep -q '"while_used": true' state/tank.json || die "nobody knows why it was started: $(cat state/tank.json)"
ok tarn pool add tank d1 --file-size 64M
grep -q '"while_used": true' state/tank.json || die "with a disk more nobody knows why it was started: $(cat state/tank.json)"
kill -KILL "$pid"
wait_ended "$server"
ok tarn volume show tank/web
echo "passing: passed"
