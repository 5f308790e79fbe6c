#!/bin/bash
# The life of machines as a user sees it, with a VMM that has no guest (fake_vmm.c): run, start, list, show, console,
# stop, reset, pause, resume, set, attach, detach, delete; a guest that ends in each way; a server that is killed; and
# that nothing is left of any of it.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"

. "$here/machines.sh"

echo kernel >kernel
vm_file() { # NAME LINE...
    {
        echo "name: $1"
        echo "memory: 64M"
        echo "memory-max: 128M"
        echo "kernel: kernel"
        echo "disks:"
        shift
        printf '%s\n' "$@"
    } >"$1.yaml"
    [ -n "$1" ] || die "no name"
}
vm_file web '  - {volume: tank/web, size: 32M, serial: S1}' '  - {volume: tank/data, size: 16M}'
vm_file second '  - {volume: tank/web}'
vm_file reader '  - {volume: tank/web, readonly: true}'

# ---- where both folders are one, sockets lie beside machines ----
mkdir -p "$work/one/vm"
$python -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' "$work/one/vm/web.sock"
TARN_STATE_DIR=$work/one TARN_RUNTIME_DIR=$work/one ok tarn vm list
same "$out" ""

# ---- words and errors ----
fails 1 "cannot open 'nix.yaml'" tarn vm run nix.yaml
fails 1 "there is no machine 'nix'" tarn vm show nix
fails 1 "there is no machine 'nix'" tarn vm stop nix
fails 1 "there is no machine 'nix'" tarn vm console nix
fails 1 "there is no machine 'nix'" tarn vm delete nix
fails 1 "there is no machine 'nix'" tarn vm attach nix tank/web
fails 1 "there is no machine 'nix'" tarn vm set nix cpus=2
fails 1 . tarn vm show ../x
fails 2 "more arguments" tarn vm run
fails 2 "no such command" tarn vm frobnicate
ok tarn vm list
same "$out" ""
ok tarn vm list --json
same "$(json "['machines']")" "[]"
echo 'name: [' >bad.yaml
fails 1 "^tarn: bad.yaml:" tarn vm run bad.yaml
FAKE_VMM_NO_KVM=1 fails 1 "there is no /dev/kvm" tarn vm run web.yaml
none_left

# ---- a pool that is not there, or has no such volume ----
fails 1 "tank" tarn vm start web.yaml
ok tarn pool create tank d0 --file-size 256M
fails 1 "there is no" tarn vm start second.yaml
none_left
ok tarn vm delete second

# ---- in the foreground ----
(sleep 0.2; while ! grep -q started fg.out; do sleep 0.05; done; echo hello; sleep 0.2; echo poweroff) |
    timeout 60 "$TARN" vm run web.yaml >fg.out 2>fg.err || die "'vm run' failed: $(cat fg.err)"
grep -q "typed hello" fg.out || die "the guest did not hear: $(cat fg.out)"
same "$(tail -n 1 fg.out)" freed
[ "$(head -n 2 fg.out)" = $'connected disk0\nconnected disk1' ] || die "no disks: $(cat fg.out)"
same "$(state web)" off
for word in fail panic crash lie; do
    status=0
    # however often it panics
    (while ! grep -q started fg.out; do sleep 0.05; done; echo $word; echo $word; echo $word; sleep 5) |
        timeout 60 "$TARN" vm run web.yaml >fg.out 2>fg.err || status=$?
    same "$status" 1 "$word"
    : >fg.out.next
    mv fg.out.next fg.out
    case $word in
    fail) grep -q "the guest does what nobody can" fg.err ;;
    panic) [ "$(grep -c "machine 'web': the guest's kernel has panicked" fg.err)" = 1 ] ;;
    crash) grep -q "the process of machine 'web' has ended: Killed" fg.err ;;
    lie) grep -q "makes no sense" fg.err ;;
    esac || die "after '$word' it says: $(cat fg.err)"
done
# keys of a terminal
timeout 120 $python "$here/keys.py" "$(realpath "$TARN")" vm run web.yaml >keys.log 2>&1 || die "on a terminal it failed: $(cat keys.log)"

# SIGTERM presses the button, a second one needs no guest
timeout 60 "$TARN" vm run web.yaml >fg.out 2>fg.err </dev/null &
pid=$!
wait_for_line fg.out started
# shellcheck disable=SC2046
kill -TERM $(cat state/vm/web/lock)
wait "$pid" || die "stopped by SIGTERM it failed: $(cat fg.err)"
grep -q "power button" fg.out || die "the button was not pressed: $(cat fg.out)"

# ---- in the background ----
ok tarn vm start web.yaml
same "$out" "started 'web'"
uuid=$(grep uuid state/vm/web/vm.yaml)
same "$(state web)" running
fails 1 "machine 'web' runs already, by process $(cat state/vm/web/lock)" tarn vm start web.yaml
fails 1 "runs already" tarn vm run web
fails 1 "runs already" tarn vm delete web
ok tarn vm list
grep -Eq "^web +running +1 +64.0 MiB +2 +no +[0-9]+" <<<"$out" || die "the list: $out"
ok tarn volume show tank/web
grep -q "^in use by    machine 'web' (pid" <<<"$out" || die "not in use: $out"
fails 1 "in use" tarn volume delete tank/web --yes
fails 1 "'tank/web' is in use by machine 'web'" tarn vm start second.yaml
ok tarn vm start reader.yaml
ok tarn vm pause web
same "$(state web)" paused
ok tarn vm resume web
same "$(state web)" running
ok tarn vm reset web
ok tarn vm show web --json
same "$(json "['resets']")" 1
same "$(json "['disks'][0]['volume']")" tank/web
types web hello
for line in started paused resumed reset "typed hello"; do
    has_said web "^$line" || die "the console lacks '$line': $(said web)"
done
types web confined
# builds with a sanitizer have no filter of system calls
[ -n "${SANITIZED-}" ] || has_said web "^open E.*, socket E" || die "it may open or connect: $(said web)"

# ---- its disks, memory and file ----
ok tarn volume create tank/more 8M
ok tarn vm attach web tank/more
fails 1 "has 'tank/more' already" tarn vm attach web tank/more
ok tarn vm show web
grep -q "tank/more" <<<"$out" || die "not shown: $out"
grep -q "tank/more" state/vm/web/vm.yaml || die "not there at the next start"
fails 1 "there is no" tarn vm attach web tank/nix
fails 1 "no disk 'tank/nix'" tarn vm detach web tank/nix
ok tarn vm detach web tank/more
printf '%s\n' 'name: boots' 'memory: 64M' 'firmware: kernel' 'disks:' '  - {volume: tank/boots, size: 8M}' >boots.yaml
ok tarn vm start boots.yaml
fails 1 "'tank/boots' is the last disk of machine 'boots'" tarn vm detach boots tank/boots
ok tarn vm stop boots --force
ok tarn vm delete boots
grep -q "tank/more" state/vm/web/vm.yaml && die "still there at the next start"
ok tarn vm set web cpus=2 memory=96M
has_said web "^memory 96" || die "the guest has no more memory: $(said web)"
ok tarn vm set web cmdline='say "x\y"'
# A path is taken from where it is said, and not from where the machine was started.
mkdir elsewhere
cd elsewhere
ok tarn vm set web initrd=disk.img console-log=said
cd ..
grep -qx "initrd: $work/elsewhere/disk.img" state/vm/web/vm.yaml && grep -qx "console-log: $work/elsewhere/said" state/vm/web/vm.yaml ||
    die "paths: $(cat state/vm/web/vm.yaml)"
ok tarn vm set web initrd= console-log=
grep -q "cpus: 2" state/vm/web/vm.yaml || die "cpus: $(cat state/vm/web/vm.yaml)"
fails 1 "65" tarn vm set web cpus=65
fails 1 "cannot be set" tarn vm set web name=other
fails 1 "is not KEY=VALUE" tarn vm set web cpus
same "$(grep uuid state/vm/web/vm.yaml)" "$uuid"

# ---- memory beyond what it was started with: how it could have it is said ----
printf '%s\n' 'name: small' 'memory: 64M' 'kernel: kernel' >small.yaml
ok tarn vm start small.yaml
fails 1 "^hint: it counts when the machine is started next; memory-max says" tarn vm set small memory=256M
grep -qx "memory: 256M" state/vm/small/vm.yaml || die "not there at the next start: $(cat state/vm/small/vm.yaml)"
ok tarn vm stop small --force
ok tarn vm delete small

# ---- a panic resets the machine, where its file says so, and only if it has not begun anew by itself ----
printf '%s\n' 'name: again' 'memory: 64M' 'kernel: kernel' 'on-crash: reboot' >again.yaml
ok tarn vm start again.yaml
types again panic
has_said again "^reset" || die "it is not reset: $(said again)"
grep -q "machine 'again': the guest's kernel has panicked" state/vm/again/log || die "nobody says so: $(cat state/vm/again/log)"
types again $'panic\nreboot'
sleep 1.2 # longer than a panic is waited for
ok tarn vm show again --json
same "$(json "['resets']")" 2
same "$(json "['state']")" running
ok tarn vm stop again
ok tarn vm delete again

# ---- a server that dies is replaced, and one that is started otherwise waited for ----
kill -KILL "$(pool_server tank)"
connected=0
for _ in $(seq 200); do
    connected=$(said web | grep -c '^connected disk0' || true)
    [ "$connected" -lt 2 ] || break
done
same "$connected" 2
wait_state web running
wait_for_line state/vm/web/log "disk 'tank/web' is back"

# ---- stopping ----
ok tarn vm stop reader
types web deaf
ok tarn vm stop web --timeout 1
same "$out" "stopped 'web' by force"
same "$(state web)" off
fails 1 "machine 'web' does not run" tarn vm stop web
ok tarn vm start web
ok tarn vm stop web
same "$out" "stopped 'web'"
ok tarn vm start web
ok tarn vm stop web --force
# A client's time is its own, also where it is longer than what a signal gives (fake_vmm.c: 6 seconds).
ok tarn vm start web
types web deaf
SECONDS=0
ok tarn vm stop web --timeout 10
same "$out" "stopped 'web' by force"
[ $SECONDS -ge 10 ] || die "stopped by force after $SECONDS seconds"
ok tarn vm start web
types web deaf
kill -TERM "$(cat state/vm/web/lock)"
wait_state web off
# Of two who ask the later one counts.
ok tarn vm start web
types web deaf
tarn vm stop web --timeout 100 >stop.out &
stop=$!
wait_state web stopping
SECONDS=0
ok tarn vm stop web --timeout 1
wait "$stop" || die "the first stop failed"
same "$(cat stop.out)" "stopped 'web' by force"
[ $SECONDS -lt 90 ] || die "stopped after $SECONDS seconds"
none_left

# ---- whatever is killed, nothing is left ----
ok tarn vm start web
kill -KILL "$(cat state/vm/web/lock)"
none_left
same "$(state web)" off
ok tarn vm start web
ok tarn vm show web --json
kill -KILL "$(json "['vmm_pid']")"
wait_state web off
# Who asks for the pool's status all the time does not keep its server.
SECONDS=0
while [ -n "$(pool_server tank)" ] && [ $SECONDS -lt 60 ]; do
    tarn pool status tank >/dev/null
done
[ -z "$(pool_server tank)" ] || die "a server stays for as long as its pool's status is asked for"
none_left
ls run/vm/*disk* 2>/dev/null && die "sockets of disks are left"

# ---- a server that is told to end while a machine runs ----
serve_now tank
ok tarn vm start web
wait_state web running
serve_end
ok tarn vm stop web --force
none_left

# ---- while it does not run ----
ok tarn vm attach web tank/more --readonly
ok tarn vm detach web tank/more
ok tarn vm set web cpus=1
cd elsewhere
ok tarn vm set web initrd=disk.img
cd ..
grep -qx "initrd: $work/elsewhere/disk.img" state/vm/web/vm.yaml || die "paths: $(cat state/vm/web/vm.yaml)"
fails 1 "does not run" tarn vm pause web
ok tarn vm delete web --volumes --yes
fails 1 "there is no" tarn volume show tank/web
fails 1 "there is no machine 'web'" tarn vm show web
echo "vm: passed"
