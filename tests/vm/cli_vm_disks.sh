#!/bin/bash
# Disks of machines that run and lose their pool's server, with a VMM that has no guest (fake_vmm.c): they are connected
# again, however often they are lost, and only to what they were.
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

# ---- its name by the time that its server is back: another volume's ----
log=state/vm/web/log
kill_server
ok tarn snapshot create tank/web@monday
ok tarn volume rename tank/web old
ok tarn volume clone tank/old@monday tank/web
serve_now tank
wait_for_line $log "the guest waits for it: 'tank/web' is the name of another volume by now"
same "$(disk connected)" False
ok tarn vm show web
grep -q "tank/web, waiting for its server: 'tank/web' is the name of another volume by now$" <<<"$out" ||
    die "it does not show why its disk is gone: $out"
says_again '^connected disk0' 3
fails 1 "disk 'tank/web' is gone: 'tank/web' is the name of another volume" tarn vm snapshot web wrong --disks-only
ok tarn snapshot list tank/web
! grep -q wrong <<<"$out" || die "another machine's volume is cut: $out"
ok tarn volume delete tank/web --yes
ok tarn volume rename tank/old web
wait_connected True
same "$(disk problem)" null

# ---- a volume that it has keeps its name, and is cut like any other ----
fails 1 "'tank/web' is a disk of machine 'web', which finds it by that name" tarn volume rename tank/web old
grep -q "^hint: stop the machine" err || die "there is no hint"
ok tarn vm snapshot web now --disks-only
wait_connected True

# ---- taken back to a snapshot by force: its guest knows what the volume held before ----
ok tarn snapshot restore tank/web@monday --force --yes
wait_for_line $log "the guest waits for it: 'tank/web' was taken back to a snapshot"
sleep 1 # several more attempts
same "$(grep -c "taken back to a snapshot" $log)" 1
same "$(disk connected)" False
says_again '^connected disk0' 4
ok tarn vm stop web --force
ok tarn vm start web
wait_connected True
ok tarn vm stop web --force

# ---- when it has stopped, its disks are free ----
for _ in 1 2 3 4 5; do
    ok tarn snapshot create tank/web@read
    ok tarn vm start web
    ok tarn vm attach web tank/web@read
    ok tarn vm stop web --force
    ok tarn snapshot delete tank/web@read --yes
    ok tarn vm detach web tank/web@read
    ok tarn vm start web
    ok tarn vm stop web --force
    ok tarn snapshot restore tank/web@monday --discard-current --yes
done
serve_end
none_left
echo "machines' disks: passed"
