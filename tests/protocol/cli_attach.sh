#!/bin/bash
# Volumes over vhost-user as a user sees them: attached, shown, in use, resized, renamed, remembered, detached; a folder
# with a socket for each.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/vhost_common.sh"

has_feature() { # NAME BIT
    [ $(($(cat "$work/$1.features") >> $2 & 1)) = 1 ]
}

ok tarn pool create tank d0 --file-size 256M
ok tarn volume create tank/web 64M
ok tarn volume create tank/other 64M
ok tarn snapshot create tank/web@s

# it needs a server, and leaves no socket behind where there is none
fails 1 "nobody serves pool 'tank'" tarn volume attach tank/web --vhost-user web.sock
grep -q "^hint: 'tarn serve tank'" err || die "no hint at serve"
[ ! -e web.sock ] || die "a socket is left"
fails 1 "not attached" tarn volume detach tank/web
fails 2 "needs the path" tarn volume attach tank/web

serve_now tank
fails 1 "1 to 16 queues" tarn volume attach tank/web --vhost-user web.sock --queues 17
fails 1 "there is no 'nix'" tarn volume attach tank/nix --vhost-user web.sock
[ ! -e web.sock ] || die "a socket is left"
ok tarn volume attach tank/web --vhost-user web.sock --queues 3
same "$(stat -c %a web.sock)" 600
fails 1 "attached already, at '$work/web.sock'" tarn volume attach tank/web --vhost-user two.sock
[ ! -e two.sock ] || die "a socket is left"
ok tarn volume attach tank/web@s --vhost-user snap.sock
ok tarn volume attach tank/other --vhost-user other.sock --readonly
ok tarn volume show tank/web
grep -q "^attached at  $work/web.sock (queues: 3)$" <<<"$out" || die "show says: $out"
ok tarn volume show tank/web --json
same "$(json "['attached'][0]['path']")" "$work/web.sock"
same "$(json "['attached'][0]['queues']")" 3
same "$(json "['attached'][0]['clients']")" "[]"

# in use by who is connected
connect web.sock web
same "$(cat web.capacity)" $((64 << 20))
has_feature web 13 || die "discard is not offered"
ok tarn volume show tank/web
grep -q "connected: pid $pid" <<<"$out" || die "show says: $out"
grep -q "^in use by    vhost-user front end pid $pid$" <<<"$out" || die "show says: $out"
ok tarn volume show tank/web --json
same "$(json "['attached'][0]['clients'][0]['pid']")" "$pid"
same "$(json "['users']")" 1
fails 1 "in use by vhost-user front end pid $pid" tarn volume delete tank/web --snapshots --yes
fails 1 "in use by vhost-user front end pid $pid" tarn snapshot restore tank/web@s
fails 1 "in use by vhost-user front end pid $pid" tarn volume resize tank/web 32M --yes
fails 1 "cannot detach 'tank/web': it is in use by vhost-user front end pid $pid" tarn volume detach tank/web

# snapshot, and growing, which the guest hears of
ok tarn snapshot create tank/web@t
ok tarn volume resize tank/web 96M
wait_for_text web.capacity $((96 << 20))

# a snapshot, and what was attached so, are read-only
connect snap.sock snap
has_feature snap 5 || die "a snapshot is writable"
fails 1 "cannot delete 'tank/web@s': it is in use by vhost-user front end pid $pid" tarn snapshot delete tank/web@s --yes
connect other.sock other
has_feature other 5 || die "'--readonly' is writable"
! has_feature other 13 || die "a read-only device offers discard"

# a new name, in the state file too
ok tarn volume rename tank/web site
ok tarn volume show tank/site --json
same "$(json "['attached'][0]['path']")" "$work/web.sock"
grep -q '"name": "site"' state/tank.json || die "the state file lacks the new name"
grep -q '"name": "site@s"' state/tank.json || die "the state file lacks the snapshot's new name"
[ ! -e web.off ] || die "a rename hangs up"

# cut off: by force
ok tarn snapshot restore tank/site@s --force --discard-current --yes
wait_for web.off
ok tarn volume set tank/site discard=off
connect web.sock again
! has_feature again 13 || die "discard=off is not heeded"
ok tarn volume detach tank/site --force
wait_for again.off
[ ! -e web.sock ] || die "the socket of what was detached is there"
fails 1 "not attached" tarn volume detach tank/site

# killed and started again, stopped and started again: what is attached comes back
kill -KILL "$server"
wait "$server" || true
wait_for other.off snap.off
serve_now tank
wait_for other.sock snap.sock
connect other.sock other2
serve_end
wait_for other2.off
[ ! -e other.sock ] || die "a stopped server leaves its sockets"
ok tarn volume show tank/other --json
same "$(json "['attached'][0]['path']")" "$work/other.sock"
serve_now tank
wait_for other.sock snap.sock

# what is deleted is attached no more
connect snap.sock snap2
fails 1 "cannot delete 'tank/site': it is in use by vhost-user front end pid $pid" \
    tarn volume delete tank/site --snapshots --yes
[ ! -e snap2.off ] || die "a delete that is refused hangs up"
ok tarn snapshot delete tank/site@s --yes --force
wait_for snap2.off
[ ! -e snap.sock ] || die "the socket of a deleted snapshot is there"
! grep -q 'site@s' state/tank.json || die "a deleted snapshot is remembered"
serve_end
# another's socket that has come in place of it stays
rm -f other.sock
$python -c 'import socket, time
s = socket.socket(socket.AF_UNIX)
s.bind("other.sock")
s.listen()
time.sleep(60)' &
listener=$!
wait_for other.sock
ok tarn volume detach tank/other
[ -S other.sock ] || die "another's socket was taken away"
kill "$listener"
! grep -q attachments state/tank.json || die "something is remembered: $(cat state/tank.json)"

# whoever has hung up is no user, though the server may have had no time to notice
serve_now tank
ok tarn volume create tank/left 8M
ok tarn volume attach tank/left --vhost-user left.sock
$python - run/tank.control left.sock <<'END' || die "one that has hung up is a user"
import json, socket, sys, time
control = socket.socket(socket.AF_UNIX)
control.connect(sys.argv[1])
lines = control.makefile("rw")
def ask(command, **fields):
    lines.write(json.dumps({"command": command, "pool": "tank", **fields}) + "\n")
    lines.flush()
    return json.loads(lines.readline())
for i in range(100):
    front_end = socket.socket(socket.AF_UNIX)
    front_end.connect(sys.argv[2])
    end = time.monotonic() + 30
    while not ask("volume-show", volume="left")["used_by"]:
        assert time.monotonic() < end
    front_end.close()
    reply = ask("volume-resize", volume="left", size=(8 - i % 2) << 20, shrink=True)
    assert "ok" in reply, reply
END
ok tarn volume detach tank/left
serve_end

# a folder
serve_now tank --vhost-user vms
same "$(stat -c %a vms)" 700
wait_for vms/site.sock vms/other.sock
fails 1 "not attached" tarn volume detach tank/other
grep -q "^hint: .*serve --vhost-user" err || die "no hint at the folder"
ok tarn volume create tank/new 8M
wait_for vms/new.sock
connect vms/new.sock new
ok tarn volume rename tank/new newer
wait_for vms/newer.sock
[ ! -e vms/new.sock ] && [ ! -e new.off ] || die "a rename leaves the old socket, or hangs up"
ok tarn snapshot create tank/newer@a
ok tarn volume clone tank/newer@a tank/copy
wait_for vms/copy.sock
ok tarn volume delete tank/newer --snapshots --yes --force
wait_for new.off
[ ! -e vms/newer.sock ] || die "a deleted volume leaves its socket"
head -c 1M /dev/zero >raw
ok tarn image import raw tank/image
wait_for vms/image.sock
serve_end
[ -z "$(ls vms)" ] || die "a stopped server leaves sockets: $(ls vms)"

# two pools, each with a volume of the same name
ok tarn pool create pond d1 --file-size 128M
ok tarn volume create pond/site 8M
serve_now tank pond --vhost-user vms
wait_for vms/tank/site.sock vms/pond/site.sock
connect vms/pond/site.sock pond
same "$(cat pond.capacity)" $((8 << 20))
serve_end

# who may connect: a group that is named, else the server's; the same after a start
one=$(id -gn) two=$(id -Gn | tr ' ' '\n' | tail -1)
[ "$(id -u)" != 0 ] || one=daemon two=bin
is_for() { # SOCKET GROUP
    same "$(stat -c %a:%G "$1")" "660:$2"
}
serve_now tank --group "$one"
fails 1 "there is no group 'no-such-group'" tarn volume attach tank/other --vhost-user o.sock --group no-such-group
[ ! -e o.sock ] || die "a socket is left"
ok tarn volume attach tank/other --vhost-user o.sock --group "$two"
ok tarn volume attach tank/site --vhost-user s.sock
is_for o.sock "$two"
is_for s.sock "$one"
ok tarn volume show tank/other --json
same "$(json "['attached'][0]['group']")" "$two"
serve_end
serve_now tank
wait_for o.sock s.sock
is_for o.sock "$two"
same "$(stat -c %a s.sock)" 600
serve_end
sed -i "s/\"group\": \"$two\"/\"group\": \"no-such-group\"/" state/tank.json
serve_now tank
wait_for s.sock
grep -q "'tank/other' is not attached: there is no group 'no-such-group'" serve.tank.log || die "no word of a group that is gone"
[ ! -e o.sock ] || die "a socket for a group that is gone"
serve_end

# imported again, as one is whose disks have moved: what is attached stays so
ok tarn pool import d0
serve_now tank
wait_for s.sock
serve_end
