#!/bin/bash
# Disks of machines that run and lose their pool's server, with a VMM that has no guest (fake_vmm.c): they are connected
# again, however often they are lost.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"
. "$here/machines.sh"

cat >web.yaml <<'Y'
name: web
memory: 64M
kernel: kernel
disks:
  - {volume: tank/web, size: 32M}
Y
echo kernel >kernel
ok tarn pool create tank d0 --file-size 256M

disk() { # KEY
    ok tarn vm show web --json
    json "['disks'][0]['$1']"
}
wait_connected() { # VALUE
    for _ in $(seq 400); do
        [ "$(disk connected)" != "$1" ] || return 0
        sleep 0.05
    done
    die "connected is not $1: $out"
}
says_again() { # PATTERN COUNT
    for _ in $(seq 60); do
        [ "$(said web | grep -Ec -- "$1")" != "$2" ] || return 0
    done
    die "it does not say '$1' $2 times: $(said web)"
}
kill_server() {
    kill -KILL "$server"
    wait "$server" || true
}

# ---- lost again before anybody has heard that it is connected ----
serve_now tank
ok tarn vm start web.yaml
types web fragile
kill_server
serve_now tank
says_again '^connected disk0' 3
says_again '^lost disk0' 2
wait_connected True
ok tarn vm stop web --force
serve_end
none_left
echo "machines' disks: passed"
