#!/bin/bash
# Machines that start with the host, without one that starts: which of them 'vm start --autostart' takes, that one that
# cannot keeps none of the others back, and that 'vm stop --autostart' ends them all, each in its own time.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"
. "$here/machines.sh"

ok tarn pool create tank d0 --file-size 256M
echo kernel >kernel
mkdir etc
vm_file() { # FILE NAME AUTOSTART [LINE...]
    {
        printf '%s\n' "name: $2" "memory: 64M" "kernel: $work/kernel" "autostart: $3" \
            "disks:" "  - {volume: tank/$2, size: 8M}" "${@:4}"
    } >"$1"
}
running() {
    ok tarn vm list
    awk '$2 == "running" { printf "%s%s", sep, $1; sep = " " }' <<<"$out"
}

# ---- what is said ----
fails 2 "needs more arguments" tarn vm start
fails 2 "needs more arguments" tarn vm stop
fails 2 "one argument too many: 'b'" tarn vm start --autostart a b
fails 2 "takes no name" tarn vm stop --autostart web
ok tarn vm start --autostart
same "$out" ""
ok tarn vm start --autostart nowhere
same "$out" ""
ok tarn vm stop --autostart
same "$out" ""
touch no-folder
fails 1 "cannot list 'no-folder': Not a directory" tarn vm start --autostart no-folder
none_left

# ---- files of a folder ----
vm_file etc/db.yaml db yes
vm_file etc/manual.yaml manual no
vm_file etc/web.yaml web yes
vm_file etc/.hidden.yaml hidden yes
vm_file etc/notes.txt notes yes
echo 'name: [' >etc/broken.yaml
vm_file etc/lost.yaml lost yes "  - {volume: tank/nowhere}"
status=0
timeout 60 "$TARN" vm start --autostart etc >all.out 2>all.err || status=$?
same "$status" 1
same "$(cat all.out)" "started 'db'
started 'web'"
grep -q "^tarn: etc/broken.yaml:2:1: " all.err || die "it does not say what is wrong with a file: $(cat all.err)"
grep -q "^tarn: there is no 'nowhere' in pool 'tank'" all.err || die "it does not say what is wrong: $(cat all.err)"
same "$(running)" "db web"
ok tarn vm list
grep -Eq "^db +running +1 +64.0 MiB +1 +yes +[0-9]+" <<<"$out" || die "the list: $out"
ok tarn vm show db
grep -q "^autostart    yes$" <<<"$out" || die "it is not shown: $out"
rm etc/broken.yaml etc/lost.yaml
ok tarn vm delete lost

# Those that run are left alone.
pid=$(cat state/vm/db/lock)
ok tarn vm start --autostart etc
same "$out" ""
same "$(cat state/vm/db/lock)" "$pid"

# ---- the end: all at once, each in its own time ----
ok tarn vm start etc/manual.yaml
types web deaf
ok tarn vm stop --autostart --timeout 2
same "$(sort <<<"$out")" "stopped 'db'
stopped 'web' by force"
same "$(running)" manual
ok tarn vm stop manual
none_left

# ---- what is known ----
ok tarn vm set manual autostart=yes
ok tarn vm show manual --json
same "$(json "['autostart']")" True
ok tarn vm start --autostart
same "$out" "started 'db'
started 'manual'
started 'web'"
ok tarn vm set web autostart=no
ok tarn vm show web --json
same "$(json "['autostart']")" False
ok tarn vm stop --autostart
same "$(sort <<<"$out")" "stopped 'db'
stopped 'manual'"
same "$(running)" web
ok tarn vm stop web
# The folder's file counts, where there is one.
vm_file etc/db.yaml db no
ok tarn vm start --autostart etc
same "$out" "started 'web'"
rm etc/manual.yaml
ok tarn vm start --autostart etc
same "$out" "started 'manual'"

# ---- it cannot be stopped ----
kill -STOP "$(cat state/vm/web/lock)"
(sleep 3; kill -CONT "$(cat state/vm/web/lock)") &
ok tarn vm stop --autostart
same "$(sort <<<"$out")" "stopped 'manual'
stopped 'web'"
none_left

# ---- a signal: what was begun is undone, and nothing more begins ----
vm_file etc/a.yaml a yes
sed -i "s/tank/other/" etc/a.yaml
ok tarn pool create other d1 --file-size 64M
serve_now other
kill -STOP "$server"
"$TARN" vm start --autostart etc >cut.out 2>cut.err &
pid=$!
for _ in $(seq 400); do
    [ ! -s state/vm/a/log ] && [ ! -s state/vm/a/lock ] || break
    sleep 0.05
done
sleep 0.5
kill -TERM "$pid"
kill -CONT "$server"
status=0
wait "$pid" || status=$?
same "$status" 1
same "$(cat cut.out)" ""
grep -q "^tarn: interrupted$" cut.err || die "it does not say why: $(cat cut.err)"
serve_end
none_left
echo "vm_autostart: passed"
