#!/bin/bash
# Snapshots of machines beside what else is asked of them meanwhile, of machines with disks in several pools, and memory
# that is slow to read; with a VMM that has no guest (fake_vmm.c).
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"
. "$here/machines.sh"

cat >web.yaml <<'Y'
name: web
memory: 64M
kernel: kernel
console-log: turns.log
disks:
  - {volume: tank/web, size: 32M}
  - {volume: tank/data, size: 16M}
Y
echo kernel >kernel
ok tarn pool create tank d0 --file-size 256M
ok tarn vm start web.yaml

# ---- from its pause until it goes on nobody else has the guest run, or hold ----
server=$(pool_server tank)
turns() {
    grep -E "^(paused|resumed|reset|saved|power button)$" turns.log || true
}
begin() { # SNAPSHOT: its pause, in which it waits for the pool's server
    local before
    before=$(grep -c saved turns.log || true)
    kill -STOP "$server"
    tarn vm snapshot web "$1" >"$1.out" 2>&1 &
    snapshot=$!
    for _ in $(seq 400); do
        [ "$(grep -c saved turns.log || true)" = "$before" ] || return 0
        sleep 0.05
    done
    die "the guest is not saved: $(cat turns.log)"
}
meanwhile() { # COMMAND [OPTION]
    tarn vm "$1" web "${@:2}" >"meanwhile.out" 2>&1 &
    command=$!
    sleep 1
}
finish() {
    kill -CONT "$server"
    wait "$snapshot" || die "no snapshot: $(cat ./*.out)"
    wait "$command" || die "$(cat meanwhile.out)"
}
begin held
meanwhile pause
kill -0 "$command" || die "it is paused by two"
finish
same "$(state web)" paused
same "$(turns | tail -n 1)" paused
begin held-paused
meanwhile resume
same "$(turns | tail -n 1)" saved "it runs before its disks are cut"
finish
same "$(state web)" running
same "$(turns | tail -n 1)" resumed
begin held-reset
meanwhile reset
same "$(turns | tail -n 1)" saved "it is reset before its disks are cut"
finish
begin held-stopped
meanwhile stop
same "$(turns | tail -n 1)" saved "it is told to end before its disks are cut"
finish
same "$(cat meanwhile.out)" "stopped 'web'"

# ---- memory that takes longer to read than any other order takes (fake_vmm.c: 12 seconds) ----
ok tarn vm start web
keeps() { # WORD
    types web "keep $1"
    has_said web "^kept $1" || die "the guest does not keep '$1'"
}
keeps "slow 15"
ok tarn vm snapshot web slow
ok tarn vm restore web slow --yes
same "$(state web)" running
types web tell
has_said web "memory has slow 15" || die "its memory is not what it was: $(said web)"
keeps "slow 100"
ok tarn vm snapshot web slower
ok tarn vm stop web --force
"$TARN" vm restore web slower >slower.out 2>&1 </dev/null &
restore=$!
has_said web "^loading" || die "it does not begin: $(cat slower.out)"
SECONDS=0
kill -TERM "$restore"
! wait "$restore" || die "it is said to be restored"
[ $SECONDS -lt 60 ] || die "it is not interrupted for $SECONDS seconds"
same "$(cat slower.out)" "tarn: interrupted"
none_left
same "$(state web)" off
ok tarn vm delete web

# ---- what fails in a later pool, or after all, leaves nothing in those before ----
ok tarn pool create brook d1 --file-size 256M
printf '%s\n' 'name: two' 'memory: 64M' 'kernel: kernel' 'disks:' '  - {volume: tank/one, size: 8M}' \
    '  - {volume: tank/ro, size: 8M, readonly: true}' '  - {volume: tank/two, size: 8M}' '  - {volume: brook/three, size: 8M}' >two.yaml
ok tarn vm start two.yaml
ok tarn vm stop two
none_left
volumes() { # POOL
    tarn volume list "$1" --json | $python -c 'import json, sys
print(*sorted(v["name"] for v in json.load(sys.stdin)["volumes"]))'
}
ok tarn snapshot create brook/three@taken
fails 1 "taken" tarn vm snapshot two taken
[ ! -e state/vm/two/snapshots/taken ] && [ ! -e state/vm/two/snapshots/.taken ] || die "a snapshot that failed is there"
ok tarn snapshot list tank --json
! grep -q '@taken"' <<<"$out" || die "a volume was cut, and another was not"
ok tarn vm snapshot two base
ok tarn volume create brook/new-three 8M
before="$(volumes tank) $(volumes brook)"
fails 1 "has a volume 'new-three' already" tarn vm clone two base new
same "$(volumes tank) $(volumes brook)" "$before"
fails 1 "too long for a volume's name" tarn vm clone two base "$(printf 'n%.0s' $(seq 60))"
same "$(volumes tank) $(volumes brook)" "$before"
mkdir state/vm/late
fails 1 "runs already" flock state/vm/late/lock timeout 60 "$TARN" vm clone two base late
same "$(volumes tank) $(volumes brook)" "$before"
[ ! -e state/vm/new ] && [ ! -e state/vm/late/vm.yaml ] || die "a machine that failed is there"

# ---- by force a machine ends at once, and its snapshot with it: also what a pool has cut by then ----
ok tarn vm start two
server=$(pool_server brook)
kill -STOP "$server"
tarn vm snapshot two forced >forced.out 2>&1 &
snapshot=$!
for _ in $(seq 400); do
    ok tarn snapshot list tank --json
    ! grep -q '@forced"' <<<"$out" || break
    sleep 0.05
done
grep -q '@forced"' <<<"$out" || die "the first pool is not cut: $(cat forced.out)"
tarn vm stop two --force >stop.out 2>&1 &
command=$!
sleep 1
kill -CONT "$server"
! wait "$snapshot" || die "a snapshot is said to be there: $(cat forced.out)"
wait "$command" || die "$(cat stop.out)"
none_left
[ ! -e state/vm/two/snapshots/forced ] && [ ! -e state/vm/two/snapshots/.forced ] || die "a snapshot that failed is there"
for pool in tank brook; do
    ok tarn snapshot list $pool --json
    ! grep -q '@forced"' <<<"$out" || die "a snapshot of a volume in '$pool' is left"
done

echo "machines' snapshots, beside all else: passed"
