#!/bin/bash
# Snapshots of machines as a user sees them, with a VMM that has no guest (fake_vmm.c): of one that runs and of one that
# does not, going back, cloning, deleting; and that a snapshot that fails leaves nothing.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"
. "$here/machines.sh"

cat >web.yaml <<'Y'
name: web
memory: 64M
kernel: kernel
disks:
  - {volume: tank/web, size: 32M, serial: S1}
  - {volume: tank/data, size: 16M}
Y
echo kernel >kernel
ok tarn pool create tank d0 --file-size 256M

keeps() { # WORD
    types web "keep $1"
    has_said web "^kept $1" || die "the guest does not keep '$1'"
}

# ---- of one that does not run: its disks ----
fails 1 "there is no machine 'web'" tarn vm snapshot web monday
fails 2 "more arguments" tarn vm snapshot web
ok tarn vm start web.yaml
ok tarn vm stop web
ok tarn vm snapshot web off
grep -q "does not run" <<<"$out" || die "$out"
ok tarn snapshot list tank --json
same "$(json "['snapshots'][0]['name']")" tank/data@off
fails 1 "has a snapshot 'off' already" tarn vm snapshot web off
fails 1 "letter or digit" tarn vm snapshot web ../off

# Its share of the CPU is what it gets, or a warning says why not.
ok tarn vm set web cpu-max=150%
ok tarn vm start web
started=$(cat "$work/err" state/vm/web/log)
ok tarn vm show web --json
grep -q '/tarn-web$' "/proc/$(json "['vmm_pid']")/cgroup" || grep -q "runs without cpu-weight and cpu-max: " <<<"$started" ||
    die "its CPU time is not limited, and nothing says so: $started"
ok tarn vm stop web
ok tarn vm set web cpu-max=

# ---- of one that runs ----
ok tarn vm start web
keeps apple
ok tarn vm snapshot web monday
grep -Eq "paused for [0-9]+ ms" <<<"$out" || die "$out"
same "$(state web)" running
for line in paused resumed; do
    has_said web "^$line" || die "the guest was not $line"
done
fails 1 "has a snapshot 'monday' already" tarn vm snapshot web monday
ok tarn snapshot list tank --json
for volume in web data; do
    grep -q "\"tank/$volume@monday\"" <<<"$out" || die "no snapshot of '$volume'"
done
[ -s state/vm/web/snapshots/monday/vm.yaml ] && [ -s state/vm/web/snapshots/monday/memory ] &&
    [ -s state/vm/web/snapshots/monday/state ] || die "the snapshot is not whole"
ok tarn vm snapshot web disks --disks-only
same "$(tarn vm show web --json | $python -c 'import json, sys
for s in json.load(sys.stdin)["snapshots"]:
    print(s["name"], s["created"][:2], "memory" if s["memory"] else s["memory"])')" \
    $'disks 20 None\nmonday 20 memory\noff 20 None'
ok tarn vm show web
grep -Eq '^snapshots +disks, 20[0-9: -]+, disks only$' <<<"$out" && grep -Eq '^ +monday, 20[0-9: -]+, memory [0-9]' <<<"$out" ||
    die "it does not show its snapshots: $out"
[ ! -e state/vm/web/snapshots/disks/memory ] || die "the memory was taken"

# ---- what fails leaves nothing, and the guest runs ----
keeps poison
fails 1 "the memory cannot be read" tarn vm snapshot web never
ok tarn snapshot create tank/data@taken
keeps pear
fails 1 "taken" tarn vm snapshot web taken
same "$(state web)" running
for name in never taken; do
    [ ! -e state/vm/web/snapshots/$name ] && [ ! -e state/vm/web/snapshots/.$name ] || die "'$name' is there"
done
ok tarn snapshot list tank/web --json
! grep -q '@taken' <<<"$out" || die "a volume was cut, and another was not"

# A limit on the size of files is no signal that ends the machine.
ok tarn vm show web --json
for pid in "$(json "['vmm_pid']")" "$(json "['pid']")"; do
    if prlimit --pid "$pid" --fsize=0: 2>/dev/null; then
        fails 1 . tarn vm snapshot web limited
        prlimit --pid "$pid" --fsize=unlimited:
    fi
    [ $((16#$(sed -n 's/^SigIgn:\t//p' "/proc/$pid/status") >> 24 & 1)) = 1 ] || die "SIGXFSZ ends process $pid"
done
same "$(state web)" running
[ ! -e state/vm/web/snapshots/limited ] || die "a snapshot that is too large is there"

# ---- back to it: it runs on with what it had in memory ----
fails 1 "has no snapshot 'nix'" tarn vm restore web nix
fails 1 "this needs a yes" tarn vm restore web monday
same "$(state web)" running
head -c 1M /dev/urandom >random
ok tarn vm restore web monday --yes
grep -q "runs on from there" <<<"$out" || die "$out"
same "$(state web)" running
types web tell
has_said web "memory has apple" || die "its memory is not what it was: $(said web)"
# Who wrote what is saved was a guest's process: it is read by one that may open nothing, and let go of.
[ -n "${SANITIZED-}" ] || has_said web "^loading: open E.*, socket E" || die "it may open or connect: $(said web)"
ok tarn vm show web --json
vmm=$(json "['vmm_pid']")
open=$(for fd in "/proc/$vmm/fd"/*; do readlink "$fd"; done)
grep -q socket <<<"$open" && ! grep -q snapshots/monday <<<"$open" || die "the saved files are open: $open"
ok tarn snapshot list tank/web
grep -q before-restore <<<"$out" || die "what was replaced is gone"
ok tarn vm restore web disks --yes
grep -q "does not run" <<<"$out" || die "$out"
same "$(state web)" off
# A snapshot that has lost a volume's is refused before anything is changed.
ok tarn snapshot delete tank/data@off --yes
fails 1 "there is no snapshot 'tank/data@off' any more" tarn vm restore web off
# Nor is a damaged one started.
ok tarn vm restore web monday --yes
ok tarn vm stop web --force
echo nonsense >state/vm/web/snapshots/monday/state
fails 1 "the saved state is damaged" tarn vm restore web monday
none_left
ok tarn vm show web --json
same "$(json "['snapshots'][1]['name']")" monday
ok tarn vm start web
ok tarn vm stop web --force

# ---- of one whose disks have come and gone since its start ----
disks() { # MACHINE
    tarn vm show "$1" --json | $python -c 'import json, sys
print(*(d["id"] + "=" + d["volume"] + "!" * d["readonly"] for d in json.load(sys.stdin)["disks"]))'
}
ok tarn volume create tank/more 8M
ok tarn volume create tank/other 8M
ok tarn snapshot create tank/more@then
ok tarn vm start web
same "$(disks web)" "disk0=tank/web disk1=tank/data"
ok tarn vm attach web tank/other
ok tarn vm attach web tank/more
ok tarn vm attach web tank/more@then
ok tarn vm detach web tank/other
ok tarn vm detach web tank/data
ok tarn vm show web
grep -Eq '^ +tank/more, attached since its start$' <<<"$out" && grep -Eq '^ +tank/more@then \(read-only\), attached since' <<<"$out" ||
    die "it does not show what was attached: $out"
keeps plum
ok tarn vm snapshot web changed
ok tarn snapshot list tank --json
grep -q '"tank/more@changed"' <<<"$out" && ! grep -Eq '"tank/(other|data)@changed"' <<<"$out" ||
    die "other disks were cut than it has: $out"
ok tarn vm detach web tank/more
ok tarn vm attach web tank/data
ok tarn vm attach web tank/other
ok tarn vm set web memory-max=128M
ok tarn vm restore web changed --yes
same "$(disks web)" "disk0=tank/web disk3=tank/more disk4=tank/more@then!"
types web tell
has_said web "memory has plum" || die "its memory is not what it was: $(said web)"
# A number is never used twice, also when it goes on from there.
ok tarn vm attach web tank/data
ok tarn vm snapshot web again
ok tarn vm stop web --force
ok tarn vm detach web tank/more@then
ok tarn vm restore web again
same "$(disks web)" "disk0=tank/web disk3=tank/more disk4=tank/more@then! disk5=tank/data"
ok tarn vm stop web --force
ok tarn vm start web
same "$(disks web)" "disk0=tank/web disk1=tank/more disk2=tank/more@then! disk3=tank/data"
ok tarn vm stop web --force
cp state/vm/web/snapshots/changed/disks numbers
for text in '[0, 3]' '[0, 3, 3]' '[0, 3, -1]' 'nonsense' '[0, 3, 1e9]'; do
    echo "$text" >state/vm/web/snapshots/changed/disks
    fails 1 "does not name the 3 disks of the snapshot" tarn vm restore web changed
done
cp numbers state/vm/web/snapshots/changed/disks
# A tarn that could not save it after such a change wrote no numbers.
rm state/vm/web/snapshots/monday/disks
echo "state disk0 disk1 " >state/vm/web/snapshots/monday/state
ok tarn vm restore web monday
same "$(disks web)" "disk0=tank/web disk1=tank/data"
ok tarn vm stop web --force

# A guest may let go of a disk long after it was asked to.
ok tarn vm clone web changed third
same "$(disks third)" "disk0=tank/third disk1=tank/third-more disk2=tank/more@then!"
types third "drop disk1"
same "$(disks third)" "disk0=tank/third disk2=tank/more@then!"
ok tarn vm detach third tank/third-more
! grep -q third-more state/vm/third/vm.yaml || die "still there at the next start"
fails 1 "has no disk 'tank/third-more'" tarn vm detach third tank/third-more
ok tarn vm snapshot third late
ok tarn vm restore third late --yes
same "$(disks third)" "disk0=tank/third disk2=tank/more@then!"
# A volume that another machine has by now is noticed before others are changed; it is waited for a while.
ok tarn vm attach third tank/more
ok tarn snapshot list tank --json
kept=$(grep -c 'tank/web@before-restore' <<<"$out")
tarn vm restore web changed >back 2>&1 &
back=$!

# ---- another machine of it ----
ok tarn vm clone web monday twin
same "$(state twin)" running
ok tarn vm show twin --json
same "$(json "['disks'][0]['volume']")" tank/twin
same "$(json "['disks'][1]['volume']")" tank/twin-data
grep -q '^uuid:' state/vm/twin/vm.yaml
[ "$(grep '^uuid:' state/vm/twin/vm.yaml)" != "$(grep '^uuid:' state/vm/web/vm.yaml)" ] || die "one uuid for two"
fails 1 "there is a machine 'twin' already" tarn vm clone web monday twin
ok tarn vm stop twin --force
ok tarn pool status tank
grep -Eq '^machines +third$' <<<"$out" || die "the pool does not name its machine: $out"
! wait "$back" || die "it goes back to a volume that is in use"
grep -q "cannot go back to 'tank/more@changed': its volume is in use by machine 'third'" back || die "$(cat back)"
ok tarn snapshot list tank --json
same "$(grep -c 'tank/web@before-restore' <<<"$out")" "$kept"
ok tarn vm stop third --force
ok tarn snapshot delete tank/more@then --yes
fails 1 "there is no snapshot 'tank/more@then' any more" tarn vm restore web changed
ok tarn snapshot list tank --json
same "$(grep -c 'tank/web@before-restore' <<<"$out")" "$kept"

# ---- with a network: the other machine has an address of its own ----
mkdir bin
printf '%s\n' '#!/bin/sh' 'cat <&3 >/dev/null 2>&1 &' >bin/passt # in the background, until its connection ends
chmod +x bin/passt
printf '%s\n' 'name: net' 'memory: 64M' 'kernel: kernel' 'network:' '  - {type: user, mac: "52:54:00:aa:bb:cc", forward: ["tcp:127.0.0.1:8080:80"]}' \
    'disks:' '  - {volume: tank/net, size: 8M}' >net.yaml
PATH=$work/bin:$PATH ok tarn vm start net.yaml
ok tarn vm snapshot net tuesday
PATH=$work/bin:$PATH ok tarn vm clone net tuesday sibling
has_said net "^nic0 is 52:54:00:aa:bb:cc" || die "its address is not what its file says: $(said net)"
has_said sibling "^nic0 is ([0-9a-f]{2}:){5}[0-9a-f]{2}" || die "it has no network: $(said sibling)"
! grep -q "^nic0 is 52:54:00:aa:bb:cc" <<<"$(said sibling)" || die "one address for two: $(said sibling)"
! grep -Eq "mac:|forward:" state/vm/sibling/vm.yaml || die "what one machine alone can have: $(cat state/vm/sibling/vm.yaml)"
PATH=$work/bin:$PATH ok tarn vm restore net tuesday --yes
has_said net "^nic0 is 52:54:00:aa:bb:cc" || die "it goes on with another address: $(said net)"
for machine in sibling net; do
    ok tarn vm stop $machine --force
    ok tarn vm delete $machine
done

# ---- the end of them ----
fails 1 "this needs a yes" tarn vm delete web@monday
ok tarn vm delete web@monday --yes
[ ! -e state/vm/web/snapshots/monday ] || die "it is still there"
ok tarn snapshot list tank --json
! grep -q '@monday"' <<<"$out" || die "a volume's snapshot is still there"
fails 1 "has no snapshot 'monday'" tarn vm delete web@monday --yes
# What others that were killed have left is in nobody's way: one that could not be removed to its end, ...
mkdir state/vm/web/snapshots/again/held
fails 1 "cannot remove" tarn vm delete web@again --yes
fails 1 "has no snapshot 'again'" tarn vm delete web@again --yes
rmdir state/vm/web/snapshots/..again/held
ok tarn vm snapshot web again
ok tarn vm delete web@again --yes
[ -z "$(ls -A state/vm/web/snapshots | grep again)" ] || die "what was left is still there"
# ... one that was begun, and one without its file.
mkdir state/vm/web/snapshots/.begun state/vm/web/snapshots/half
touch state/vm/web/snapshots/.begun/memory state/vm/web/snapshots/half/memory state/vm/web/snapshots/stray
ok tarn vm delete web
[ ! -e state/vm/web ] || die "its folder is still there"
none_left
echo "machines' snapshots: passed"
