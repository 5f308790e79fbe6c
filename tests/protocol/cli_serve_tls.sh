#!/bin/bash
# 'tarn serve' with TLS as its operator sees it: modes, mistakes, who may open what, reading anew at SIGHUP; vsock;
# sockets that systemd passes, and what it is told.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/tls_common.sh"
. "$here/takeover_common.sh"

authority ca
certificate server ca tls_www_server
certificate client ca tls_www_client
certificate expired ca 'activation_date = "2020-01-01 00:00:00"' 'expiration_date = "2020-02-01 00:00:00"'
client_folder right ca client
client_folder none ca
for user in alice bob carol; do
    key "$user"
done
ok tarn pool create tank d1 --file-size 256M
ok tarn volume create tank/web 8M
ok tarn volume create tank/db 16M
ok tarn snapshot create tank/web@monday
pair="--tls-cert server.pem --tls-key server.key"

plain() { echo "nbd+unix:///$1?socket=$work/run/tank.nbd"; }
with_key() { echo "nbds+unix://$1@/$2?socket=$work/run/tank.nbd&tls-psk-file=$work/keys.psk"; }
# nbdinfo as everybody has it, with a limit
info() { timeout -k 5 30 nbdinfo "$@" 2>err </dev/null; }
serves() { same "$(info --size "$1")" "$2" "size of '$1'; $(cat err)"; }
refuses() {
    ! out=$(info --size "$1") || die "'$1' was served"
}

# ---- mistakes: one sentence each, before anything is opened ----
fails 1 "no mode of TLS" tarn serve tank --tls sometimes $pair
fails 1 "TLS needs a certificate or pre-shared keys" tarn serve tank --tls require
fails 1 "come together" tarn serve tank --tls-cert server.pem
fails 1 "cannot open 'none.pem'" tarn serve tank --tls-cert none.pem --tls-key server.key
fails 1 "does not belong to" tarn serve tank --tls-cert server.pem --tls-key client.key
fails 1 "expired on 2020-02-01" tarn serve tank --tls-cert expired.pem --tls-key expired.key
fails 1 "without the certificate of their CA" tarn serve tank $pair --tls-verify-peer
printf '%s\n' "# comment" "alice:00" >bad.psk
chmod 600 bad.psk
fails 1 "line 2 of 'bad.psk'" tarn serve tank --tls-psk bad.psk
fails 1 "which is off" tarn serve tank --tls-access access
fails 1 "cannot open 'access'" tarn serve tank $pair --tls-access access
for line in 'alice' 'alice tank/web rw' '"alice tank/web' 'alice tank/web ro more'; do
    printf '\n%s\n' "$line" >access
    fails 1 "line 2 of 'access'" tarn serve tank $pair --tls-access access
done
for number in 0 -1 x 99999999999; do
    fails 1 "a number from 1 to" tarn serve tank "--max-connections=$number"
    fails 1 "a number from 1 to" tarn serve tank "--handshake-timeout=$number"
    fails 1 "a number from 1 to" tarn serve tank "--idle-timeout=$number"
done
[ ! -e run/tank.nbd ] || die "a server that did not start left its socket"

# ---- modes ----
serve_now tank --tls off $pair
serves "$(plain tank/web)" $((8 << 20))
refuses "$(with_key alice tank/web)"
serve_end
serve_now tank --tls allow --tls-psk keys.psk
serves "$(plain tank/web)" $((8 << 20))
serves "$(with_key alice tank/web)" $((8 << 20))
serve_end
serve_now tank --tls-psk keys.psk # required where nothing else is said
refuses "$(plain tank/web)"
refuses "$(plain '')"
serves "$(with_key alice tank/web)" $((8 << 20))
# The next server does not ask for less because its command line was shorter; only where it is told to.
fails 1 "cannot take over: process $server asks its clients for more TLS than the new server would" tarn serve tank --takeover
take_over tank --tls-psk keys.psk
refuses "$(plain tank/web)"
serves "$(with_key alice tank/web)" $((8 << 20))
take_over tank --tls off
serves "$(plain tank/web)" $((8 << 20))
serve_end
serve_now tank --tls require-network --tls-psk keys.psk --nbd unix:run/tank.nbd --nbd tcp:127.0.0.1:0
port=$(grep -o 'nbd://127.0.0.1:[0-9]*' serve.tank.log | grep -o '[0-9]*$')
serves "$(plain tank/web)" $((8 << 20))
serves "$(with_key alice tank/web)" $((8 << 20))
refuses "nbd://127.0.0.1:$port/tank/web"
serves "nbds://alice@127.0.0.1:$port/tank/web?tls-psk-file=$work/keys.psk" $((8 << 20))
serve_end

# ---- warnings: about what others reach, and secrets that others read ----
warned() { grep -q "$1" serve.tank.log || die "no warning '$1'"; }
quiet() { ! grep -q "^tarn: " serve.tank.log || die "a warning that is none"; }
serve_now tank --nbd tcp:0.0.0.0:0
warned "there is no TLS"
serve_end
serve_now tank --nbd tcp:0.0.0.0:0 --tls allow --tls-psk keys.psk
warned "not required"
serve_end
serve_now tank --nbd tcp:0.0.0.0:0 $pair --tls-ca ca.pem
warned "asks nobody who he is"
serve_end
serve_now tank --nbd tcp:0.0.0.0:0 $pair --tls-ca ca.pem --tls-verify-peer
quiet
serve_end
serve_now tank --nbd tcp:0.0.0.0:0 --tls-psk keys.psk
quiet
serve_end
chmod 644 keys.psk
serve_now tank --nbd tcp:127.0.0.1:0 --tls-psk keys.psk
warned "'keys.psk' holds a secret, and everybody may read it"
serve_end
chmod 600 keys.psk

# ---- who may open what ----
cat >access <<'A'
# identity        export           right
alice             tank/web
alice             tank/web@*       ro
bob               tank/*           ro
"psk:car?l"       *
cn:client         tank/db
-                 tank/db          ro   # whoever has no identity
A
serve_now tank $pair --tls-ca ca.pem --tls-psk keys.psk --tls-access access --nbd unix:run/tank.nbd \
    --nbd tcp:127.0.0.1:0
port=$(grep -o 'nbd://127.0.0.1:[0-9]*' serve.tank.log | grep -o '[0-9]*$')
fails 1 "cannot take over: process $server has an access list, and the new server has none" \
    tarn serve tank --takeover $pair --tls-psk keys.psk
with_certificate() { echo "nbds://127.0.0.1:$port/$2?tls-certificates=$work/$1"; }
readonly_is() { # URI yes|no
    local is=no
    ! info --is readonly "$1" || is=yes
    same "$is" "$2" "'$1' is read-only; $(cat err)"
}
serves "$(with_key alice tank/web)" $((8 << 20))
readonly_is "$(with_key alice tank/web)" no
readonly_is "$(with_key alice tank/web@monday)" yes
readonly_is "$(with_key alice web)" no # by its short name it is the same export
readonly_is "$(with_key bob tank/web)" yes
readonly_is "$(with_key bob tank/db)" yes
readonly_is "$(with_key carol tank/db)" no
readonly_is "$(with_certificate right tank/db)" no
refuses "$(with_certificate right tank/web)"
readonly_is "$(with_certificate none tank/db)" yes
refuses "$(with_certificate none tank/web)"
# what is not for him looks to him like what is not there, in all its words
refuses "$(with_key alice tank/db)"
sed 's,tank/db,NAME,g' err >denied
refuses "$(with_key alice tank/nosuch)"
sed 's,tank/nosuch,NAME,g' err >missing
cmp denied missing || die "$(cat denied missing)"
refuses "$(with_key alice db)"
refuses "$(with_key alice nosuch/web)"
refuses "$(with_key alice '')"
listed() { info --list "$1" | sed -n 's/^export="\(.*\)":$/\1/p' | sort | tr '\n' ' '; }
same "$(listed "$(with_key alice tank/web)")" "tank/web tank/web@monday "
same "$(listed "$(with_key bob tank/web)")" "tank/db tank/web tank/web@monday "
same "$(listed "$(with_certificate none tank/db)")" "tank/db "
# a client that may only read cannot write
head -c 64K /dev/urandom >random
! timeout 30 nbdcopy random "$(with_key bob tank/web)" 2>/dev/null || die "a reader wrote"
timeout 30 nbdcopy random "$(with_key alice tank/web)" || die "a writer could not"

# ---- read anew ----
until_logged() {
    for _ in $(seq 600); do
        [ "$(grep -c "$1" serve.tank.log)" -lt "$2" ] || return 0
        sleep 0.05
    done
    die "the server does not say '$1'"
}
sed -i 's/^alice .*//' access
key dave
kill -HUP "$server"
until_logged "read anew" 1
refuses "$(with_key alice tank/web)"
refuses "$(with_key dave tank/web)"
echo 'dave *' >>access
kill -HUP "$server"
until_logged "read anew" 2
serves "$(with_key dave tank/web)" $((8 << 20))
echo 'rubbish' >>access
kill -HUP "$server"
until_logged "stays in force" 1
serves "$(with_key dave tank/web)" $((8 << 20))
sed -i '$d' access
rm server.key
kill -HUP "$server"
until_logged "stays in force" 2
serves "$(with_certificate right tank/db)" $((16 << 20))
ok tarn volume list tank
serve_end

# ---- limits ----
serve_now tank --max-connections 2 --handshake-timeout 1 --idle-timeout 1
$python - <<'P'
import os, socket, time
socks = []
for i in range(3):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(os.environ["TARN_RUNTIME_DIR"] + "/tank.nbd")
    socks.append(s)
assert len(socks[0].recv(18, socket.MSG_WAITALL)) == 18 and len(socks[1].recv(18, socket.MSG_WAITALL)) == 18
assert socks[2].recv(1) == b"", "a third connection was served"
assert socks[0].recv(1) == b"", "a handshake went on for more than its time" # cut off after a second
assert socks[1].recv(1) == b""
# Their connections are hung up on, and may count until they are put away, a moment later.
until = time.monotonic() + 30
while True:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(os.environ["TARN_RUNTIME_DIR"] + "/tank.nbd")
    if len(s.recv(18, socket.MSG_WAITALL)) == 18:
        break
    assert time.monotonic() < until, "connections that are gone still count"
    time.sleep(0.01)
s.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\x08tank/web") # EXPORT_NAME
assert len(s.recv(10, socket.MSG_WAITALL)) == 10
assert s.recv(1) == b"", "a connection was idle for more than its time"
P
serve_end

# ---- vsock ----
for address in vsock: vsock:x vsock:1:2:3 vsock:99999999999 vsock:-1 vsock:1:; do
    fails 1 "not a vsock address" tarn serve tank --nbd "$address"
done
# One that nobody has: it is the machine's, and another test may run beside this one.
if port=$($python -c 'import socket
s = socket.socket(socket.AF_VSOCK)
s.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
print(s.getsockname()[1])' 2>/dev/null); then
    serve_now tank --nbd vsock:$port --tls-psk keys.psk
    grep -q "nbd+vsock://2:$port" serve.tank.log || die "$(cat serve.tank.log)"
    if $python -c 'import socket; s = socket.socket(socket.AF_VSOCK); s.settimeout(5); s.connect((1, '"$port"'))' 2>/dev/null; then
        serves "nbds+vsock://alice@1:$port/tank/web?tls-psk-file=$work/keys.psk" $((8 << 20))
        serve_end
        serve_now tank --nbd vsock:1:$port
        quiet # only from this host
        serves "nbd+vsock://1:$port/tank/web" $((8 << 20))
    else
        echo "no vsock loopback here: nobody connects to it"
    fi
    serve_end
else
    fails 1 "cannot listen on 'vsock:10809'" tarn serve tank --nbd vsock:10809
fi

# ---- what systemd passes, and is told ----
launched=
launch() { # SOCKET... -- OPTION...: a server under launch.py, ready
    local words=()
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    : >launch.log # what the last one said is not to be taken for this one's word
    $python "$here/launch.py" "${words[@]}" -- "$TARN" serve tank "$@" >launch.log 2>&1 </dev/null &
    launched=$!
    server_pids+=("$launched")
    for _ in $(seq 600); do
        ! grep -q 'READY=1' launch.log || break
        kill -0 "$launched" 2>/dev/null || die "$(cat launch.log)"
        sleep 0.05
    done
    server=$(sed -n 's/^pid //p' launch.log)
    server_pids+=("$server")
}
land() { # the server ends
    local got=0
    kill -TERM "$server"
    wait "$launched" || got=$?
    same "$got" 0 "exit status of a server under a service manager; $(cat launch.log)"
    grep -q '^notify STOPPING=1' launch.log || die "it does not say that it stops: $(cat launch.log)"
}
launch --
grep -q '^notify READY=1 STATUS=serving 1 pool on 1 NBD socket' launch.log || die "$(cat launch.log)"
serves "$(plain tank/web)" $((8 << 20))
land
[ ! -e run/tank.nbd ] || die "a server under a service manager left its socket"
launch "nbd=$work/passed.nbd" "nbd=127.0.0.1:0" "nbd=::1:0" "control=$work/passed.control" --
inode=$(stat -c '%i %a' passed.nbd)
serves "nbd+unix:///tank/web?socket=$work/passed.nbd" $((8 << 20))
for uri in $(sed -n 's/^  NBD *\(nbd:.*\)/\1/p' launch.log); do
    serves "$uri/tank/web" $((8 << 20))
done
same "$(grep -c '^  NBD' launch.log)" 3
[ ! -e run/tank.nbd ] && [ ! -e run/tank.control ] || die "default sockets beside those that were passed"
ok tarn volume list tank # finds the control socket that was passed
ok tarn volume show tank/web
# it does not spin on sockets that do not block
before=$(awk '{ print $14 + $15 }' "/proc/$server/stat")
sleep 1
[ $(($(awk '{ print $14 + $15 }' "/proc/$server/stat") - before)) -lt 20 ] || die "an idle server takes CPU"
land
same "$(stat -c '%i %a' passed.nbd)" "$inode" "the socket's file"
[ -S passed.control ] || die "a socket that was passed was removed"
rm passed.nbd passed.control
launch "nbd=$work/passed.nbd" -- --nbd "unix:$work/own.nbd" --tls-psk keys.psk
serves "nbds+unix://bob@/tank/web?socket=$work/passed.nbd&tls-psk-file=$work/keys.psk" $((8 << 20))
serves "nbds+unix://bob@/tank/web?socket=$work/own.nbd&tls-psk-file=$work/keys.psk" $((8 << 20))
ok tarn volume list tank
kill -HUP "$server"
for _ in $(seq 600); do
    ! grep -q 'RELOADING=1' launch.log || break
    sleep 0.05
done
grep -q 'RELOADING=1' launch.log || die "$(cat launch.log)"
land
[ ! -e own.nbd ] || die "a socket of its own was left"
# they go along to the next server, and remain the manager's: their files stay when that one ends, its own go
rm -f passed.nbd
launch "nbd=$work/passed.nbd" "control=$work/passed.control" -- --nbd "unix:$work/own.nbd"
files=$(stat -c '%n %i %a' passed.nbd passed.control)
old=$server
"$TARN" serve tank --takeover >take.passed.log 2>&1 </dev/null &
server=$!
server_pids+=("$server")
for _ in $(seq 600); do
    ! grep -q '^  control' take.passed.log || break
    kill -0 "$server" 2>/dev/null || die "the new server did not come up"
    sleep 0.05
done
grep -q "taken over from process $old; " take.passed.log || die "passed sockets are not taken over"
got=0
wait "$launched" || got=$?
same "$got" 0 "exit status of the old server; $(cat launch.log)"
same "$(stat -c '%n %i %a' passed.nbd passed.control)" "$files" "the sockets' files after a takeover"
serves "nbd+unix:///tank/web?socket=$work/passed.nbd" $((8 << 20))
serves "nbd+unix:///tank/web?socket=$work/own.nbd" $((8 << 20))
ok tarn volume list tank
serve_end
same "$(stat -c '%n %i %a' passed.nbd passed.control)" "$files" "the sockets' files after the next server's end"
[ ! -e own.nbd ] || die "a socket of a server that was taken over was left"
rm passed.nbd passed.control
# what is no use is refused, in a sentence
refused() { # PATTERN SOCKET... [-- OPTION...]
    local pattern=$1 got=0
    shift
    case " $* " in *" -- "*) ;; *) set -- "$@" -- ;; esac
    local sockets=()
    while [ "$1" != -- ]; do
        sockets+=("$1")
        shift
    done
    shift
    rm -f "$work"/passed.*
    timeout -k 5 60 $python "$here/launch.py" "${sockets[@]}" -- "$TARN" serve tank "$@" >launch.log 2>&1 </dev/null || got=$?
    same "$got" 1 "status of a server that was passed ${sockets[*]}; $(cat launch.log)"
    grep -q "$pattern" launch.log || die "it does not say '$pattern': $(cat launch.log)"
}
refused "neither 'nbd' nor 'control'" "unknown=$work/passed.nbd"
refused "no listening stream socket" nbd=udp
refused "no listening stream socket" nbd=file
refused "no Unix socket with a path" control=127.0.0.1:0
refused "two control sockets" "control=$work/passed.1" "control=$work/passed.2"
refused "there is a control socket already" "control=$work/passed.1" -- --control "$work/other"
# the real thing
if command -v systemd-socket-activate >/dev/null; then
    rm -f passed.nbd
    systemd-socket-activate -E TARN_STATE_DIR -E TARN_RUNTIME_DIR -E TARN_LOOP -E PATH --listen="$work/passed.nbd" \
        --fdname=nbd "$TARN" serve tank >activate.log 2>&1 </dev/null &
    pid=$!
    server_pids+=("$pid")
    for _ in $(seq 600); do
        [ ! -S passed.nbd ] || break
        sleep 0.05
    done
    serves "nbd+unix:///tank/web?socket=$work/passed.nbd" $((8 << 20)) # the first client starts it
    server=$pid
    serve_end
fi
ok tarn pool check tank --data
echo "serve with TLS: passed"
