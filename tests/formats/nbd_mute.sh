#!/bin/bash
# NBD servers that say nothing: who waits for one ends when he is told to, when who asked has gone, and after half a minute.
set -eu
. "$(dirname "$0")/common.sh"

# serve_mute SOCKET WHAT: by one that says nothing to WHAT.
serve_mute() {
    $python -I -S "$here/nbd_lies.py" "$1" "mute_$2" >"$1.log" 2>&1 &
    server_pids+=($!)
    for _ in $(seq 400); do
        [ ! -S "$1" ] || return 0
        sleep 0.05
    done
    die "nobody is mute on $1"
}
uri() { echo "nbd+unix:///?socket=$work/$1"; }

# Half a minute from now these are to have ended.
serve_mute first.sock options
serve_mute second.sock requests
"$TARN" image info "$(uri first.sock)" >first.out 2>&1 </dev/null &
first=$!
"$TARN" image convert "$(uri second.sock)" x.raw >second.out 2>&1 </dev/null &
second=$!

serve_mute options.sock options
serve_mute requests.sock requests
options=$(uri options.sock) requests=$(uri requests.sock)
head -c 1M /dev/urandom >small.raw
ok tarn pool create tank d0 --file-size 256M
ok tarn image import small.raw tank/small
mkdir layers
ok qemu-img create -q -u -f qcow2 -F raw -b "$requests" layers/mute.qcow2 1M

# Until another client of SOCKET waits, who has taken signals for himself by then.
n_muted() { wc -l <"$1.log"; }
wait_muted() { # SOCKET COUNT-BEFORE
    for _ in $(seq 400); do
        [ "$(n_muted "$1")" = "$2" ] || return 0
        sleep 0.05
    done
    die "nobody has come to $1: $(cat out err)"
}

# dog PID [SECONDS]: a hang is a failure.
dog() {
    (sleep "${2:-20}" && kill -KILL "$1") >/dev/null 2>&1 &
    dog=$!
}

# interrupted SOCKET COMMAND...: told to end
interrupted() {
    local pid got=0 before socket=$1
    shift
    before=$(n_muted "$socket")
    "$TARN" "$@" >out 2>err </dev/null &
    pid=$!
    wait_muted "$socket" "$before"
    kill -TERM $pid || die "'$*' has not waited: $(cat out err)"
    dog $pid
    wait $pid || got=$?
    kill $dog 2>/dev/null || true
    same "$got" 1 "status of '$*', which says '$(cat err)'"
    grep -qx "tarn: interrupted" err || die "'$*' says '$(cat err)'"
}
interrupted options.sock image info "$options"
for socket in options.sock requests.sock; do
    mute=$(uri $socket)
    interrupted $socket image map "$mute"
    interrupted $socket image convert "$mute" y.raw
    interrupted $socket image convert small.raw "$mute" --force
    interrupted $socket image import "$mute" tank/x
    interrupted $socket image export tank/small "$mute" --force
    interrupted $socket volume create tank/x --base "$mute"
done
interrupted requests.sock image convert layers/mute.qcow2 y.raw --allow "$requests"
interrupted requests.sock image import layers/mute.qcow2 tank/x --allow "$requests"

# a pool's server: who asked has gone, or it is to end itself
for mute in options requests; do
    for ends in client server; do
        serve_now tank
        before=$(n_muted $mute.sock)
        "$TARN" image import "$(uri $mute.sock)" tank/x >out 2>&1 </dev/null &
        client=$!
        wait_muted $mute.sock "$before"
        kill -0 $client || die "the import has not waited: $(cat out)"
        if [ $ends = client ]; then
            kill -KILL $client
            wait $client 2>/dev/null || true
            # there is one client at a time, and so the one before is gone
            [ $mute = options ] || ok tarn image info "$requests"
        fi
        dog "$server"
        serve_end
        kill $dog 2>/dev/null || true
        wait $client 2>/dev/null || true
    done
done
ok tarn volume list tank
! grep -Eq "/x |import" <<<"$out" || die "an interruption has left a volume: $out"

# after half a minute
for mute in first second; do
    got=0
    dog "${!mute}" 60
    wait "${!mute}" || got=$?
    kill $dog 2>/dev/null || true
    same "$got" 1 "status of who waited for a mute server, and says '$(cat $mute.out)'"
    grep -qxF "tarn: '$(uri $mute.sock)' has not answered for 30 s" $mute.out || die "it says '$(cat $mute.out)'"
done
[ ! -e x.raw ] && [ ! -e y.raw ] || die "a failure has left a file"
echo "nbd_mute: passed"
